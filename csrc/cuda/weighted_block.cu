// CUDA version of etnet/ops/weighted_block.hpp: a pass of sums, the two small products, and a pass that scales.
#include "etnet/ops/weighted_block_cuda.hpp"
#include "etnet/weighted_block_check.hpp"
#include "launch.cuh"
#include "weighted_block_map.cuh"
#include "weighted_block_small.cuh"
#include "with_type.cuh"

namespace etnet {
namespace {

struct Memory {
    float* partial;  // [N, C, pieces] or [N, pieces, C]
    float* outer;    // [N, C]
    float* inner;    // [N, R]
    float* shift;    // [N, C]
    std::int64_t bytes;
};

Memory lay_out(void* base, const WeightedBlockSizes& sizes) {
    DeviceLayout layout(base);
    Memory memory{};
    memory.partial = layout.take<float>(sizes.images * sizes.channels * cut_of(sizes).pieces);
    memory.outer = layout.take<float>(sizes.images * sizes.channels);
    memory.inner = layout.take<float>(sizes.images * sizes.hidden);
    memory.shift = layout.take<float>(sizes.images * sizes.channels);
    memory.bytes = layout.used();
    return memory;
}

class DeviceBlock {
  public:
    DeviceBlock(const WeightedBlockArguments& arguments, cudaStream_t stream)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          memory_(lay_out(arguments.workspace, sizes_)),
          arrays_{arguments.state, memory_.outer, memory_.inner, memory_.shift, sizes_.channels, sizes_.hidden},
          partial_{memory_.partial, sizes_.channels, cut_of(sizes_).pieces, sizes_.channels_last},
          stream_(stream) {}

    template <class T>
    void forward() const {
        const DeviceMap<T> map{static_cast<const T*>(arguments_.x),
                               nullptr,
                               static_cast<T*>(arguments_.out),
                               scale(),
                               state_stride(),
                               nullptr};
        const DeviceMapPasses<T, false> passes(sizes_, map, stream_);
        passes.sum(memory_.partial);
        launch_weigh(arguments_, arrays_, partial_, stream_);
        passes.scale();
    }

    template <class T>
    void backward() const {
        const DeviceMap<T> map{static_cast<const T*>(arguments_.x),
                               static_cast<const T*>(arguments_.gradient_out),
                               static_cast<T*>(arguments_.gradient_x),
                               scale(),
                               state_stride(),
                               memory_.shift};
        const DeviceMapPasses<T, true> passes(sizes_, map, stream_);
        passes.sum(memory_.partial);
        launch_chain(arguments_, arrays_, partial_, stream_);
        passes.scale();
        launch_add_images(arguments_, arrays_, stream_);
    }

  private:
    const float* scale() const { return arguments_.state + sizes_.channels + sizes_.hidden; }
    std::int64_t state_stride() const { return 2 * sizes_.channels + sizes_.hidden; }

    const WeightedBlockArguments& arguments_;
    const WeightedBlockSizes& sizes_;
    Memory memory_;
    DeviceArrays arrays_;
    PartialSums partial_;
    cudaStream_t stream_;
};

// A block of the small products does one image, and grids have one dimension.
void check_grids(const WeightedBlockSizes& sizes) {
    constexpr std::int64_t kMaximalGrid = (std::int64_t{1} << 31) - 1;
    require(sizes.images <= kMaximalGrid && largest_grid(sizes) <= kMaximalGrid, "weighted_block: ", sizes.images,
            " images of ", sizes.channels, " channels are more than a grid of 2^31 - 1 blocks; split the batch");
}

}  // namespace

std::int64_t weighted_block_cuda_workspace_bytes(const WeightedBlockSizes& sizes) {
    check_sizes(sizes);
    check_grids(sizes);
    return lay_out(nullptr, sizes).bytes;
}

void weighted_block_cuda(const WeightedBlockArguments& arguments, void* stream) {
    check_forward(arguments, weighted_block_cuda_workspace_bytes(arguments.sizes));
    const DeviceBlock block(arguments, static_cast<cudaStream_t>(stream));
    with_type(arguments.sizes.type, [&](auto number) { block.forward<decltype(number)>(); });
}

void weighted_block_backward_cuda(const WeightedBlockArguments& arguments, void* stream) {
    check_backward(arguments, weighted_block_cuda_workspace_bytes(arguments.sizes));
    const DeviceBlock block(arguments, static_cast<cudaStream_t>(stream));
    with_type(arguments.sizes.type, [&](auto number) { block.backward<decltype(number)>(); });
}

}  // namespace etnet
