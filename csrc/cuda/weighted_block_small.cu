#include "half_precision.cuh"
#include "launch.cuh"
#include "warp_sum.cuh"
#include "weighted_block_small.cuh"
#include "with_type.cuh"

namespace etnet {
namespace {

constexpr int kSmallThreads = 512;  // of the block that does an image's small products
constexpr int kOuterThreads = 256;  // of the blocks that make the parameters' gradients

// A block does one image; what its threads leave in memory, all of them read after the barrier.
template <class Parameter>
__global__ void __launch_bounds__(kSmallThreads)
    weigh(DeviceArrays arrays, PartialSums partial, float pixels, const Parameter* w1, const Parameter* b1,
          const Parameter* w2, const Parameter* b2) {
    const DeviceRows rows = arrays.of(blockIdx.x);
    const std::int64_t channels = arrays.channels;
    const std::int64_t hidden = arrays.hidden;
    for (std::int64_t c = threadIdx.x; c < channels; c += kSmallThreads) {
        rows.mean[c] = partial.total(blockIdx.x, c) / pixels;
    }
    __syncthreads();  // the mean is complete
    for (std::int64_t r = threadIdx.x / kWarp; r < hidden; r += kSmallThreads / kWarp) {
        float product = 0.0F;
        for (std::int64_t c = threadIdx.x % kWarp; c < channels; c += kWarp) {
            product += widen(w1[r * channels + c]) * rows.mean[c];
        }
        const float value = warp_sum(product) + widen(b1[r]);
        if (threadIdx.x % kWarp == 0) rows.hidden[r] = value < 0.0F ? 0.0F : value;  // keeps NaN
    }
    __syncthreads();  // the hidden units are complete
    for (std::int64_t c = threadIdx.x; c < channels; c += kSmallThreads) {
        float product = 0.0F;
        for (std::int64_t r = 0; r < hidden; ++r) product += widen(w2[c * hidden + r]) * rows.hidden[r];
        rows.scale[c] = 1.0F / (1.0F + expf(-(product + widen(b2[c]))));
    }
}

template <class Parameter>
__global__ void __launch_bounds__(kSmallThreads)
    chain(DeviceArrays arrays, PartialSums partial, float pixels, const Parameter* w1, const Parameter* w2) {
    const DeviceRows rows = arrays.of(blockIdx.x);
    const std::int64_t channels = arrays.channels;
    const std::int64_t hidden = arrays.hidden;
    for (std::int64_t c = threadIdx.x; c < channels; c += kSmallThreads) {
        rows.outer[c] = partial.total(blockIdx.x, c) * (rows.scale[c] * (1.0F - rows.scale[c]));
    }
    __syncthreads();  // a is complete
    for (std::int64_t r = threadIdx.x / kWarp; r < hidden; r += kSmallThreads / kWarp) {
        float product = 0.0F;
        for (std::int64_t c = threadIdx.x % kWarp; c < channels; c += kWarp) {
            product += widen(w2[c * hidden + r]) * rows.outer[c];
        }
        product = warp_sum(product);
        if (threadIdx.x % kWarp == 0) rows.inner[r] = rows.hidden[r] <= 0.0F ? 0.0F : product;
    }
    __syncthreads();  // e is complete
    for (std::int64_t c = threadIdx.x; c < channels; c += kSmallThreads) {
        float product = 0.0F;
        for (std::int64_t r = 0; r < hidden; ++r) product += widen(w1[r * channels + c]) * rows.inner[r];
        rows.shift[c] = product / pixels;
    }
}

struct ParameterGradients {
    float* w1;
    float* b1;
    float* w2;
    float* b2;
};

// A thread adds the images up for one number: of W1 [R, C], then W2 [C, R], then b1, then b2.
__global__ void __launch_bounds__(kOuterThreads)
    add_images(DeviceArrays arrays, std::int64_t images, ParameterGradients gradients) {
    const std::int64_t channels = arrays.channels;
    const std::int64_t hidden = arrays.hidden;
    const std::int64_t matrix = channels * hidden;
    std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kOuterThreads + threadIdx.x;
    if (i >= 2 * matrix + hidden + channels) return;
    float sum = 0.0F;
    if (i < matrix) {
        const std::int64_t r = i / channels;
        for (std::int64_t n = 0; n < images; ++n) {
            const DeviceRows rows = arrays.of(n);
            sum += rows.inner[r] * rows.mean[i - r * channels];
        }
        gradients.w1[i] = sum;
    } else if (i < 2 * matrix) {
        i -= matrix;
        const std::int64_t c = i / hidden;
        for (std::int64_t n = 0; n < images; ++n) {
            const DeviceRows rows = arrays.of(n);
            sum += rows.outer[c] * rows.hidden[i - c * hidden];
        }
        gradients.w2[i] = sum;
    } else if (i < 2 * matrix + hidden) {
        i -= 2 * matrix;
        for (std::int64_t n = 0; n < images; ++n) sum += arrays.of(n).inner[i];
        gradients.b1[i] = sum;
    } else {
        i -= 2 * matrix + hidden;
        for (std::int64_t n = 0; n < images; ++n) sum += arrays.of(n).outer[i];
        gradients.b2[i] = sum;
    }
}

float pixels_of(const WeightedBlockSizes& sizes) {
    return static_cast<float>(sizes.height * sizes.width);
}

}  // namespace

void launch_weigh(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, const PartialSums& partial,
                  cudaStream_t stream) {
    const WeightedBlockSizes& sizes = arguments.sizes;
    with_type(sizes.parameter_type, [&](auto number) {
        using Parameter = decltype(number);
        const auto as = [](const void* numbers) { return static_cast<const Parameter*>(numbers); };
        launch("weighted_block: weigh", weigh<Parameter>, sizes.images, kSmallThreads, 0, stream, arrays, partial,
               pixels_of(sizes), as(arguments.w1), as(arguments.b1), as(arguments.w2), as(arguments.b2));
    });
}

void launch_chain(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, const PartialSums& partial,
                  cudaStream_t stream) {
    const WeightedBlockSizes& sizes = arguments.sizes;
    with_type(sizes.parameter_type, [&](auto number) {
        using Parameter = decltype(number);
        const auto as = [](const void* numbers) { return static_cast<const Parameter*>(numbers); };
        launch("weighted_block: chain", chain<Parameter>, sizes.images, kSmallThreads, 0, stream, arrays, partial,
               pixels_of(sizes), as(arguments.w1), as(arguments.w2));
    });
}

void launch_add_images(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, cudaStream_t stream) {
    const WeightedBlockSizes& sizes = arguments.sizes;
    const ParameterGradients gradients{arguments.gradient_w1, arguments.gradient_b1, arguments.gradient_w2,
                                       arguments.gradient_b2};
    const std::int64_t numbers = 2 * sizes.channels * sizes.hidden + sizes.channels + sizes.hidden;
    launch("weighted_block: add_images", add_images, divide_up(numbers, kOuterThreads), kOuterThreads, 0, stream,
           arrays, sizes.images, gradients);
}

}  // namespace etnet
