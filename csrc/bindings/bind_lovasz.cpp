// Python face of etnet/ops/lovasz_softmax.hpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "etnet/ops/lovasz_softmax.hpp"
#include "etnet/ops/lovasz_softmax_cuda.hpp"
#include "float_type.hpp"
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

const void* target_at(std::uintptr_t address, TargetType type) {
    if (type == TargetType::uint8) return pointer<const std::uint8_t>(address, "target");
    if (type == TargetType::int32) return pointer<const std::int32_t>(address, "target");
    return pointer<const std::int64_t>(address, "target");
}

// The buffers of one call; addresses are 0 for what the call does not use.
struct Buffers {
    std::uintptr_t logits;
    std::string logits_type;
    std::uintptr_t target;
    std::string target_type;
    std::optional<std::int64_t> ignore_index;
    std::uintptr_t gradient;
    std::uintptr_t weights;
    std::uintptr_t scale;
    std::uintptr_t workspace;
    std::int64_t workspace_bytes;
};

LovaszSoftmaxArguments arguments_of(const LovaszSoftmaxSizes& sizes, const Buffers& buffers, std::size_t alignment) {
    LovaszSoftmaxArguments arguments;
    arguments.sizes = sizes;
    arguments.logits_type = float_type_of(buffers.logits_type, "logits_type");
    arguments.logits = numbers_at(buffers.logits, arguments.logits_type, "logits");
    arguments.target_type = target_type_of(buffers.target_type);
    arguments.target = target_at(buffers.target, arguments.target_type);
    arguments.has_ignore_index = buffers.ignore_index.has_value();
    arguments.ignore_index = buffers.ignore_index.value_or(0);
    arguments.gradient = pointer<float>(buffers.gradient, "gradient", alignof(std::uint64_t));
    arguments.weights = pointer<float>(buffers.weights, "weights");
    arguments.scale = pointer<const float>(buffers.scale, "scale");
    arguments.workspace = pointer<std::byte>(buffers.workspace, "workspace", alignment);
    arguments.workspace_bytes = buffers.workspace_bytes;
    return arguments;
}

// `listed` must outlive the arguments.
void choose_classes(LovaszSoftmaxArguments& arguments, const std::string& mode,
                    const std::vector<std::int64_t>& listed) {
    arguments.classes = classes_of(mode);
    arguments.listed = listed.data();
    arguments.listed_count = static_cast<std::int64_t>(listed.size());
}

constexpr std::size_t kAlignment = 64;

double loss(const LovaszSoftmaxSizes& sizes, const Buffers& buffers, const std::string& mode,
            const std::vector<std::int64_t>& listed) {
    LovaszSoftmaxArguments arguments = arguments_of(sizes, buffers, kAlignment);
    choose_classes(arguments, mode, listed);
    const py::gil_scoped_release released;
    return lovasz_softmax(arguments);
}

void look_up(const LovaszSoftmaxSizes& sizes, const Buffers& buffers) {
    const LovaszSoftmaxArguments arguments = arguments_of(sizes, buffers, kAlignment);
    const py::gil_scoped_release released;
    lovasz_softmax_look_up(arguments);
}

#ifdef ETNET_WITH_CUDA
constexpr std::size_t kDeviceAlignment = 256;

void enqueue_loss(const LovaszSoftmaxSizes& sizes, const Buffers& buffers, const std::string& mode,
                  const std::vector<std::int64_t>& listed, std::uintptr_t loss, std::uintptr_t stream) {
    LovaszSoftmaxArguments arguments = arguments_of(sizes, buffers, kDeviceAlignment);
    choose_classes(arguments, mode, listed);
    lovasz_softmax_cuda(arguments, pointer<float>(loss, "loss"), pointer<void>(stream, "stream", 1));
}

void enqueue_look_up(const LovaszSoftmaxSizes& sizes, const Buffers& buffers, std::uintptr_t stream) {
    const LovaszSoftmaxArguments arguments = arguments_of(sizes, buffers, kDeviceAlignment);
    lovasz_softmax_look_up_cuda(arguments, pointer<void>(stream, "stream", 1));
}

void bind_cuda(py::module_& module) {
    using py::arg;
    module.def("lovasz_softmax_cuda_workspace_bytes", &lovasz_softmax_cuda_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 256, that lovasz_softmax_cuda needs on the current device.");
    module.def("lovasz_softmax_cuda", &enqueue_loss, arg("sizes"), arg("buffers"), py::kw_only(), arg("mode"),
               arg("listed"), arg("loss"), arg("stream"),
               "Enqueues the loss on a stream. See csrc/include/etnet/ops/lovasz_softmax_cuda.hpp.");
    module.def("lovasz_softmax_look_up_cuda", &enqueue_look_up, arg("sizes"), arg("buffers"), py::kw_only(),
               arg("stream"), "Enqueues the gradient of the histogram method on a stream.");
}
#else
void bind_cuda(py::module_&) {}
#endif

}  // namespace

void bind_lovasz(py::module_& module) {
    using py::arg;
    py::class_<LovaszSoftmaxSizes>(module, "LovaszSoftmaxSizes", "Sizes and options that decide about scratch memory.")
        .def(py::init(&sizes_of), py::kw_only(), arg("images"), arg("channels"), arg("height"), arg("width"),
             arg("per_image"), arg("channels_last"), arg("with_gradient"), arg("method"), arg("bins"), arg("threads"));
    module.def("lovasz_softmax_workspace_bytes", &lovasz_softmax_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 64, that lovasz_softmax needs.");
    py::class_<Buffers>(module, "LovaszSoftmaxBuffers", "Addresses of one call; 0 for what it does not use.")
        .def(py::init([](std::uintptr_t logits, const std::string& logits_type, std::uintptr_t target,
                         const std::string& target_type, std::optional<std::int64_t> ignore_index,
                         std::uintptr_t gradient, std::uintptr_t weights, std::uintptr_t scale,
                         std::uintptr_t workspace, std::int64_t workspace_bytes) {
                 return Buffers{logits,   logits_type, target, target_type, ignore_index,
                                gradient, weights,     scale,  workspace,   workspace_bytes};
             }),
             py::kw_only(), arg("logits"), arg("logits_type"), arg("target"), arg("target_type"), arg("ignore_index"),
             arg("gradient") = 0, arg("weights") = 0, arg("scale") = 0, arg("workspace") = 0,
             arg("workspace_bytes") = 0);
    module.def("lovasz_softmax", &loss, arg("sizes"), arg("buffers"), py::kw_only(), arg("mode"), arg("listed"),
               "Loss; writes gradient or weights. See csrc/include/etnet/ops/lovasz_softmax.hpp.");
    module.def("lovasz_softmax_look_up", &look_up, arg("sizes"), arg("buffers"),
               "Writes the gradient of the histogram method from its weights.");
    bind_cuda(module);
}

}  // namespace etnet
