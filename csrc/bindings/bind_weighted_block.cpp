// Python face of etnet/ops/weighted_block.hpp.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "etnet/ops/weighted_block.hpp"
#include "etnet/ops/weighted_block_cuda.hpp"
#include "float_type.hpp"
#include "pointer.hpp"

namespace py = pybind11;

namespace etnet {
namespace {

constexpr std::size_t kAlignment = 64;

WeightedBlockSizes sizes_of(std::int64_t images, std::int64_t channels, std::int64_t hidden, std::int64_t height,
                            std::int64_t width, bool channels_last, const std::string& x_type,
                            const std::string& parameter_type, int threads) {
    return {images,
            channels,
            hidden,
            height,
            width,
            channels_last,
            float_type_of(x_type, "x_type"),
            float_type_of(parameter_type, "parameter_type"),
            threads};
}

struct Inputs {
    std::uintptr_t x;
    std::uintptr_t w1;
    std::uintptr_t w2;
    std::uintptr_t state;
    std::uintptr_t workspace;
    std::int64_t workspace_bytes;
};

WeightedBlockArguments arguments_of(const WeightedBlockSizes& sizes, const Inputs& inputs, std::size_t alignment) {
    WeightedBlockArguments arguments;
    arguments.sizes = sizes;
    arguments.x = numbers_at(inputs.x, sizes.type, "x");
    arguments.w1 = numbers_at(inputs.w1, sizes.parameter_type, "w1");
    arguments.w2 = numbers_at(inputs.w2, sizes.parameter_type, "w2");
    arguments.state = pointer<float>(inputs.state, "state");
    arguments.workspace = pointer<std::byte>(inputs.workspace, "workspace", alignment);
    arguments.workspace_bytes = inputs.workspace_bytes;
    return arguments;
}

WeightedBlockArguments forward_arguments(const WeightedBlockSizes& sizes, const Inputs& inputs, std::size_t alignment,
                                         std::uintptr_t b1, std::uintptr_t b2, std::uintptr_t out) {
    WeightedBlockArguments arguments = arguments_of(sizes, inputs, alignment);
    arguments.b1 = numbers_at(b1, sizes.parameter_type, "b1");
    arguments.b2 = numbers_at(b2, sizes.parameter_type, "b2");
    arguments.out = numbers_at(out, sizes.type, "out");
    return arguments;
}

struct Gradients {
    std::uintptr_t out;
    std::uintptr_t x;
    std::uintptr_t w1;
    std::uintptr_t b1;
    std::uintptr_t w2;
    std::uintptr_t b2;
};

WeightedBlockArguments backward_arguments(const WeightedBlockSizes& sizes, const Inputs& inputs, std::size_t alignment,
                                          const Gradients& gradients) {
    WeightedBlockArguments arguments = arguments_of(sizes, inputs, alignment);
    arguments.gradient_out = numbers_at(gradients.out, sizes.type, "gradient_out");
    arguments.gradient_x = numbers_at(gradients.x, sizes.type, "gradient_x");
    arguments.gradient_w1 = pointer<float>(gradients.w1, "gradient_w1");
    arguments.gradient_b1 = pointer<float>(gradients.b1, "gradient_b1");
    arguments.gradient_w2 = pointer<float>(gradients.w2, "gradient_w2");
    arguments.gradient_b2 = pointer<float>(gradients.b2, "gradient_b2");
    return arguments;
}

void forward(const WeightedBlockSizes& sizes, std::uintptr_t x, std::uintptr_t w1, std::uintptr_t b1, std::uintptr_t w2,
             std::uintptr_t b2, std::uintptr_t state, std::uintptr_t out, std::uintptr_t workspace,
             std::int64_t workspace_bytes) {
    const Inputs inputs{x, w1, w2, state, workspace, workspace_bytes};
    const WeightedBlockArguments arguments = forward_arguments(sizes, inputs, kAlignment, b1, b2, out);
    const py::gil_scoped_release released;
    weighted_block(arguments);
}

void backward(const WeightedBlockSizes& sizes, std::uintptr_t x, std::uintptr_t w1, std::uintptr_t w2,
              std::uintptr_t state, std::uintptr_t gradient_out, std::uintptr_t gradient_x, std::uintptr_t gradient_w1,
              std::uintptr_t gradient_b1, std::uintptr_t gradient_w2, std::uintptr_t gradient_b2,
              std::uintptr_t workspace, std::int64_t workspace_bytes) {
    const Inputs inputs{x, w1, w2, state, workspace, workspace_bytes};
    const Gradients gradients{gradient_out, gradient_x, gradient_w1, gradient_b1, gradient_w2, gradient_b2};
    const WeightedBlockArguments arguments = backward_arguments(sizes, inputs, kAlignment, gradients);
    const py::gil_scoped_release released;
    weighted_block_backward(arguments);
}

#ifdef ETNET_WITH_CUDA
constexpr std::size_t kDeviceAlignment = 256;

void enqueue_forward(const WeightedBlockSizes& sizes, std::uintptr_t x, std::uintptr_t w1, std::uintptr_t b1,
                     std::uintptr_t w2, std::uintptr_t b2, std::uintptr_t state, std::uintptr_t out,
                     std::uintptr_t workspace, std::int64_t workspace_bytes, std::uintptr_t stream) {
    const Inputs inputs{x, w1, w2, state, workspace, workspace_bytes};
    weighted_block_cuda(forward_arguments(sizes, inputs, kDeviceAlignment, b1, b2, out),
                        pointer<void>(stream, "stream", 1));
}

void enqueue_backward(const WeightedBlockSizes& sizes, std::uintptr_t x, std::uintptr_t w1, std::uintptr_t w2,
                      std::uintptr_t state, std::uintptr_t gradient_out, std::uintptr_t gradient_x,
                      std::uintptr_t gradient_w1, std::uintptr_t gradient_b1, std::uintptr_t gradient_w2,
                      std::uintptr_t gradient_b2, std::uintptr_t workspace, std::int64_t workspace_bytes,
                      std::uintptr_t stream) {
    const Inputs inputs{x, w1, w2, state, workspace, workspace_bytes};
    const Gradients gradients{gradient_out, gradient_x, gradient_w1, gradient_b1, gradient_w2, gradient_b2};
    weighted_block_backward_cuda(backward_arguments(sizes, inputs, kDeviceAlignment, gradients),
                                 pointer<void>(stream, "stream", 1));
}

void bind_cuda(py::module_& module) {
    using py::arg;
    module.def("weighted_block_cuda_workspace_bytes", &weighted_block_cuda_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 256, that either pass needs on a device.");
    module.def("weighted_block_cuda", &enqueue_forward, arg("sizes"), py::kw_only(), arg("x"), arg("w1"), arg("b1"),
               arg("w2"), arg("b2"), arg("state"), arg("out"), arg("workspace"), arg("workspace_bytes"), arg("stream"),
               "Enqueues the forward pass on a stream. See csrc/include/etnet/ops/weighted_block_cuda.hpp.");
    module.def("weighted_block_backward_cuda", &enqueue_backward, arg("sizes"), py::kw_only(), arg("x"), arg("w1"),
               arg("w2"), arg("state"), arg("gradient_out"), arg("gradient_x"), arg("gradient_w1"), arg("gradient_b1"),
               arg("gradient_w2"), arg("gradient_b2"), arg("workspace"), arg("workspace_bytes"), arg("stream"),
               "Enqueues the backward pass on a stream.");
}
#else
void bind_cuda(py::module_&) {}
#endif

}  // namespace

void bind_weighted_block(py::module_& module) {
    using py::arg;
    py::class_<WeightedBlockSizes>(module, "WeightedBlockSizes", "Sizes and formats of a call.")
        .def(py::init(&sizes_of), py::kw_only(), arg("images"), arg("channels"), arg("hidden"), arg("height"),
             arg("width"), arg("channels_last"), arg("x_type"), arg("parameter_type"), arg("threads"));
    module.def("weighted_block_workspace_bytes", &weighted_block_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 64, that either pass needs.");
    module.def("weighted_block", &forward, arg("sizes"), py::kw_only(), arg("x"), arg("w1"), arg("b1"), arg("w2"),
               arg("b2"), arg("state"), arg("out"), arg("workspace"), arg("workspace_bytes"),
               "Writes out and state. See csrc/include/etnet/ops/weighted_block.hpp.");
    module.def("weighted_block_backward", &backward, arg("sizes"), py::kw_only(), arg("x"), arg("w1"), arg("w2"),
               arg("state"), arg("gradient_out"), arg("gradient_x"), arg("gradient_w1"), arg("gradient_b1"),
               arg("gradient_w2"), arg("gradient_b2"), arg("workspace"), arg("workspace_bytes"),
               "Writes the gradients of x and of the parameters.");
    bind_cuda(module);
}

}  // namespace etnet
