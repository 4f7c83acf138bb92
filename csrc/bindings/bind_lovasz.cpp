// Python face of etnet/ops/lovasz_softmax.hpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "etnet/ops/lovasz_softmax.hpp"
#include "etnet/ops/lovasz_softmax_cuda.hpp"
#include "pointer.hpp"

namespace py = pybind11;

namespace etnet {
namespace {

LovaszMethod method_of(const std::string& name) {
    require(name == "sort" || name == "histogram", "method is '", name, "'; expected sort or histogram");
    return name == "sort" ? LovaszMethod::sort : LovaszMethod::histogram;
}

LovaszClasses classes_of(const std::string& name) {
    require(name == "present" || name == "all" || name == "listed", "mode is '", name,
            "'; expected present, all or listed");
    if (name == "present") return LovaszClasses::present;
    return name == "all" ? LovaszClasses::all : LovaszClasses::listed;
}

LogitsType logits_type_of(const std::string& name) {
    require(name == "float32" || name == "float16" || name == "bfloat16", "logits_type is '", name,
            "'; expected float32, float16 or bfloat16");
    if (name == "float32") return LogitsType::float32;
    return name == "float16" ? LogitsType::float16 : LogitsType::bfloat16;
}

TargetType target_type_of(const std::string& name) {
    require(name == "uint8" || name == "int32" || name == "int64", "target_type is '", name,
            "'; expected uint8, int32 or int64");
    if (name == "uint8") return TargetType::uint8;
    return name == "int32" ? TargetType::int32 : TargetType::int64;
}

LovaszSoftmaxSizes sizes_of(std::int64_t images, std::int64_t channels, std::int64_t height, std::int64_t width,
                            bool per_image, bool channels_last, bool with_gradient, const std::string& method,
                            std::int64_t bins, int threads) {
    return {images, channels, height, width, per_image, channels_last, with_gradient, method_of(method), bins, threads};
}

// Numbers of the type at the address, aligned to them.
const void* logits_at(std::uintptr_t address, LogitsType type) {
    if (type == LogitsType::float32) return pointer<const float>(address, "logits");
    return pointer<const std::uint16_t>(address, "logits");
}

const void* target_at(std::uintptr_t address, TargetType type) {
    if (type == TargetType::uint8) return pointer<const std::uint8_t>(address, "target");
    if (type == TargetType::int32) return pointer<const std::int32_t>(address, "target");
    return pointer<const std::int64_t>(address, "target");
}

// What the CPU and the CUDA function have in common. `listed` must outlive the result.
LovaszSoftmaxArguments arguments_of(const LovaszSoftmaxSizes& sizes, std::uintptr_t logits,
                                    const std::string& logits_type, std::uintptr_t target,
                                    const std::string& target_type, const std::string& mode,
                                    const std::vector<std::int64_t>& listed, std::optional<std::int64_t> ignore_index,
                                    std::uintptr_t gradient, std::uintptr_t workspace, std::int64_t workspace_size,
                                    std::size_t workspace_alignment) {
    LovaszSoftmaxArguments arguments;
    arguments.sizes = sizes;
    arguments.logits_type = logits_type_of(logits_type);
    arguments.logits = logits_at(logits, arguments.logits_type);
    arguments.target_type = target_type_of(target_type);
    arguments.target = target_at(target, arguments.target_type);
    arguments.has_ignore_index = ignore_index.has_value();
    arguments.ignore_index = ignore_index.value_or(0);
    arguments.classes = classes_of(mode);
    arguments.listed = listed.data();
    arguments.listed_count = static_cast<std::int64_t>(listed.size());
    arguments.gradient = pointer<float>(gradient, "gradient", alignof(std::uint64_t));
    arguments.workspace = pointer<std::byte>(workspace, "workspace", workspace_alignment);
    arguments.workspace_bytes = workspace_size;
    return arguments;
}

double loss(const LovaszSoftmaxSizes& sizes, std::uintptr_t logits, const std::string& logits_type,
            std::uintptr_t target, const std::string& target_type, const std::string& mode,
            const std::vector<std::int64_t>& listed, std::optional<std::int64_t> ignore_index, std::uintptr_t gradient,
            std::uintptr_t workspace, std::int64_t workspace_size) {
    constexpr std::size_t kAlignment = 64;
    const LovaszSoftmaxArguments arguments =
        arguments_of(sizes, logits, logits_type, target, target_type, mode, listed, ignore_index, gradient, workspace,
                     workspace_size, kAlignment);
    const py::gil_scoped_release released;
    return lovasz_softmax(arguments);
}

#ifdef ETNET_WITH_CUDA
void loss_on_device(const LovaszSoftmaxSizes& sizes, std::uintptr_t logits, const std::string& logits_type,
                    std::uintptr_t target, const std::string& target_type, const std::string& mode,
                    const std::vector<std::int64_t>& listed, std::optional<std::int64_t> ignore_index,
                    std::uintptr_t gradient, std::uintptr_t workspace, std::int64_t workspace_size,
                    std::uintptr_t result, std::uintptr_t stream) {
    constexpr std::size_t kAlignment = 256;
    const LovaszSoftmaxArguments arguments =
        arguments_of(sizes, logits, logits_type, target, target_type, mode, listed, ignore_index, gradient, workspace,
                     workspace_size, kAlignment);
    lovasz_softmax_cuda(arguments, pointer<float>(result, "loss"), pointer<void>(stream, "stream", 1));
}
#endif

}  // namespace

void bind_lovasz(py::module_& module) {
    using py::arg;
    py::class_<LovaszSoftmaxSizes>(module, "LovaszSoftmaxSizes", "Sizes and options that decide about scratch memory.")
        .def(py::init(&sizes_of), py::kw_only(), arg("images"), arg("channels"), arg("height"), arg("width"),
             arg("per_image"), arg("channels_last"), arg("with_gradient"), arg("method"), arg("bins"), arg("threads"));
    module.def("lovasz_softmax_workspace_bytes", &lovasz_softmax_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 64, that lovasz_softmax needs.");
    module.def("lovasz_softmax", &loss, arg("sizes"), py::kw_only(), arg("logits"), arg("logits_type"), arg("target"),
               arg("target_type"), arg("mode"), arg("listed"), arg("ignore_index"), arg("gradient"), arg("workspace"),
               arg("workspace_size"),
               "Loss; writes the gradient if asked for. See csrc/include/etnet/ops/lovasz_softmax.hpp.");
#ifdef ETNET_WITH_CUDA
    module.def("lovasz_softmax_cuda_workspace_bytes", &lovasz_softmax_cuda_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 256, that lovasz_softmax_cuda needs on the current device.");
    module.def("lovasz_softmax_cuda", &loss_on_device, arg("sizes"), py::kw_only(), arg("logits"), arg("logits_type"),
               arg("target"), arg("target_type"), arg("mode"), arg("listed"), arg("ignore_index"), arg("gradient"),
               arg("workspace"), arg("workspace_size"), arg("loss"), arg("stream"),
               "Enqueues loss and gradient on a stream. See csrc/include/etnet/ops/lovasz_softmax_cuda.hpp.");
#endif
}

}  // namespace etnet
