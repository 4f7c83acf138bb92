// Python face of etnet/ops/lovasz_softmax.hpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "etnet/ops/lovasz_softmax.hpp"
#include "pointer.hpp"

namespace py = pybind11;

namespace etnet {
namespace {

constexpr std::size_t kWorkspaceAlignment = 64;

std::int64_t workspace_bytes(std::int64_t images, std::int64_t channels, std::int64_t height, std::int64_t width,
                             bool per_image, int threads) {
    return lovasz_softmax_workspace_bytes({images, channels, height, width, per_image, threads});
}

double loss(std::uintptr_t logits, std::uintptr_t target, int target_bytes, std::int64_t images, std::int64_t channels,
            std::int64_t height, std::int64_t width, const std::string& mode, const std::vector<std::int64_t>& listed,
            bool per_image, std::optional<std::int64_t> ignore_index, std::uintptr_t gradient, std::uintptr_t workspace,
            std::int64_t workspace_size, int threads) {
    LovaszSoftmaxArguments arguments;
    arguments.sizes = {images, channels, height, width, per_image, threads};
    arguments.logits = pointer<const float>(logits, "logits");
    require(target_bytes == 1 || target_bytes == 8, "target_bytes is ", target_bytes, "; expected 1 or 8");
    if (target_bytes == 1) {
        arguments.target_uint8 = pointer<const std::uint8_t>(target, "target");
    } else {
        arguments.target_int64 = pointer<const std::int64_t>(target, "target");
    }
    arguments.has_ignore_index = ignore_index.has_value();
    arguments.ignore_index = ignore_index.value_or(0);
    require(mode == "present" || mode == "all" || mode == "listed", "mode is '", mode,
            "'; expected present, all or listed");
    arguments.classes = mode == "present" ? LovaszClasses::present
                        : mode == "all"   ? LovaszClasses::all
                                          : LovaszClasses::listed;
    arguments.listed = listed.data();
    arguments.listed_count = static_cast<std::int64_t>(listed.size());
    arguments.gradient = pointer<float>(gradient, "gradient");
    arguments.workspace = pointer<std::byte>(workspace, "workspace", kWorkspaceAlignment);
    arguments.workspace_bytes = workspace_size;
    const py::gil_scoped_release released;
    return lovasz_softmax(arguments);
}

}  // namespace

void bind_lovasz(py::module_& module) {
    using py::arg;
    module.def("lovasz_softmax_workspace_bytes", &workspace_bytes, py::kw_only(), arg("images"), arg("channels"),
               arg("height"), arg("width"), arg("per_image"), arg("threads"),
               "Bytes of scratch memory, aligned to 64, that lovasz_softmax needs.");
    module.def("lovasz_softmax", &loss, py::kw_only(), arg("logits"), arg("target"), arg("target_bytes"), arg("images"),
               arg("channels"), arg("height"), arg("width"), arg("mode"), arg("listed"), arg("per_image"),
               arg("ignore_index"), arg("gradient"), arg("workspace"), arg("workspace_size"), arg("threads"),
               "Loss; writes the gradient unless its address is 0. See csrc/include/etnet/ops/lovasz_softmax.hpp.");
}

}  // namespace etnet
