// Logits, targets and softmax of one pixel on the device, and the numbers that all Lovasz-Softmax kernels share.
#pragma once

#include <cstdint>

#include "etnet/lovasz_formula.hpp"
#include "etnet/ops/lovasz_softmax.hpp"
#include "half_precision.cuh"
#include "launch.cuh"

namespace etnet {

constexpr int kThreads = 256;

struct DeviceShare {
    double total;   // G
    double weight;  // 1 / (counted classes of the segment) / (counted segments); 0 for a class that is not counted
};

// One segment. A place is the number of a pixel in it, image by image; segments have fewer than 2^31 pixels.
struct DeviceSegment {
    const void* logits;  // of the segment's first image
    const void* target;
    float* gradient;             // nullptr: loss only
    const DeviceShare* shares;   // [C]
    const std::uint32_t* valid;  // pixels that are not ignored
    int* broken;                 // set to 1 where a probability is NaN or a target is invalid
    std::uint32_t size;          // pixels of the segment
    std::uint32_t pixels;        // of one image
    std::int64_t channels;
    std::int64_t pixel_stride;
    std::int64_t channel_stride;
    TargetType target_type;
    bool has_ignore_index;
    std::int64_t ignore_index;

    // Where the logit of class 0 lies; place < size keeps it, and channels - 1 strides more, inside the segment.
    __device__ std::int64_t offset(std::uint32_t place) const {
        const std::uint32_t image = place / pixels;
        return static_cast<std::int64_t>(image) * channels * pixels +
               static_cast<std::int64_t>(place - image * pixels) * pixel_stride;
    }

    // Class index, -1 for an ignored pixel, -2 for an invalid target.
    __device__ std::int32_t label(std::uint32_t place) const {
        std::int64_t value = 0;
        if (target_type == TargetType::int64) {
            value = static_cast<const std::int64_t*>(target)[place];
        } else if (target_type == TargetType::int32) {
            value = static_cast<const std::int32_t*>(target)[place];
        } else {
            value = static_cast<const std::uint8_t*>(target)[place];
        }
        if (has_ignore_index && value == ignore_index) return -1;
        return value >= 0 && value < channels ? static_cast<std::int32_t>(value) : -2;
    }
};

// With two classes the error is the other class's probability, for both. NaN if a probability is.
template <class Logit>
__device__ float error_of_two(const DeviceSegment& segment, std::uint32_t place, std::int32_t label) {
    const Logit* logits = static_cast<const Logit*>(segment.logits) + segment.offset(place);
    const float first = widen(logits[0]);
    const float second = widen(logits[segment.channel_stride]);
    const float largest = fmaxf(first, second);
    const float advantage = label == 1 ? first - second : second - first;
    const float smaller = expf(-fabsf(advantage));
    const float larger = 1.0F / (1.0F + smaller);
    // largest - largest is NaN for +inf and for -inf twice; a NaN passes through the advantage.
    return (advantage > 0.0F ? larger : smaller * larger) + (largest - largest);
}

struct SoftmaxScale {
    float largest;
    float inverse_sum;  // NaN if a probability is
};

template <class Logit>
__device__ SoftmaxScale softmax_scale(const DeviceSegment& segment, const Logit* logits) {
    float largest = widen(logits[0]);
    for (std::int64_t channel = 1; channel < segment.channels; ++channel) {
        largest = fmaxf(largest, widen(logits[channel * segment.channel_stride]));
    }
    float sum = 0.0F;
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        sum += expf(widen(logits[channel * segment.channel_stride]) - largest);
    }
    return {largest, 1.0F / sum};
}

template <class Logit>
__device__ float probability(const SoftmaxScale& scale, Logit logit) {
    return expf(widen(logit) - scale.largest) * scale.inverse_sum;
}

}  // namespace etnet
