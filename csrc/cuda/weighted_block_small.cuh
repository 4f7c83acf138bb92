// What the weighted block computes between its passes over the map, two small matrix products for every image, and the
// gradients of the parameters.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "etnet/ops/weighted_block.hpp"

namespace etnet {

// Where the sums of the pieces lie, for a channel of an image.
struct PartialSums {
    const float* sums;
    std::int64_t channels;
    std::int64_t pieces;
    bool channels_last;

    __device__ float total(std::int64_t image, std::int64_t channel) const {
        const std::int64_t step = channels_last ? channels : 1;
        const float* piece = sums + image * channels * pieces + (channels_last ? channel : channel * pieces);
        float sum = 0.0F;
#pragma unroll 8
        for (std::int64_t i = 0; i < pieces; ++i) sum += piece[i * step];
        return sum;
    }
};

// Of one image; the state's parts, then what the backward pass adds.
struct DeviceRows {
    float* mean;
    float* hidden;
    float* scale;
    float* outer;  // a
    float* inner;  // e
    float* shift;
};

struct DeviceArrays {
    float* state;  // [N, C + R + C]
    float* outer;  // [N, C]
    float* inner;  // [N, R]
    float* shift;  // [N, C]
    std::int64_t channels;
    std::int64_t hidden;

    __device__ DeviceRows of(std::int64_t image) const {
        float* own = state + image * (2 * channels + hidden);
        return {own,
                own + channels,
                own + channels + hidden,
                outer + image * channels,
                inner + image * hidden,
                shift + image * channels};
    }
};

// Enqueues the forward step: mean, hidden and scale from the sums of x.
void launch_weigh(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, const PartialSums& partial,
                  cudaStream_t stream);

// Enqueues the backward step, by the chain rule: a, e and shift from the sums of g x.
void launch_chain(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, const PartialSums& partial,
                  cudaStream_t stream);

// Enqueues the sums over the images that are the gradients of the parameters, after `launch_chain`.
void launch_add_images(const WeightedBlockArguments& arguments, const DeviceArrays& arrays, cudaStream_t stream);

}  // namespace etnet
