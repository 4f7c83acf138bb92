// The limits that ops/lovasz_softmax.hpp sets, checked before any work starts; shared by the CPU and the CUDA version.
#pragma once

#include <algorithm>
#include <cstdint>

#include "etnet/error.hpp"
#include "etnet/ops/lovasz_softmax.hpp"

namespace etnet {

inline void check_sizes(const LovaszSoftmaxSizes& sizes) {
    constexpr std::int64_t kMaximalLogits = std::int64_t{1} << 33;
    constexpr std::int64_t kMaximalPixels = (std::int64_t{1} << 32) - 1;
    constexpr std::int64_t kMaximalBins = 65536;
    require(sizes.channels >= 1, "lovasz_softmax: the logits have ", sizes.channels, " classes; expected at least 1");
    require(sizes.images >= 0 && sizes.height >= 0 && sizes.width >= 0, "lovasz_softmax: sizes [", sizes.images, ", ",
            sizes.channels, ", ", sizes.height, ", ", sizes.width, "] must not be negative");
    require(sizes.threads >= 1, "lovasz_softmax: threads is ", sizes.threads, "; expected at least 1");
    std::int64_t room = kMaximalLogits;  // divided instead of multiplied: the product may not fit 64 bits
    for (const std::int64_t size : {sizes.images, sizes.channels, sizes.height, sizes.width}) {
        room = size == 0 ? kMaximalLogits : room / size;
        require(room > 0, "lovasz_softmax: [", sizes.images, ", ", sizes.channels, ", ", sizes.height, ", ",
                sizes.width, "] are more than 2^33 logits; split the batch");
    }
    require(sizes.channels <= INT32_MAX, "lovasz_softmax: ", sizes.channels, " classes are more than 2^31 - 1");
    const std::int64_t pixels = sizes.height * sizes.width * (sizes.per_image ? 1 : sizes.images);
    require(pixels <= kMaximalPixels, "lovasz_softmax: ", pixels, " pixels are ranked together; expected at most ",
            kMaximalPixels, "; split the batch");
    require(sizes.method == LovaszMethod::sort || (sizes.bins >= 2 && sizes.bins <= kMaximalBins),
            "lovasz_softmax: bins is ", sizes.bins, "; expected 2..", kMaximalBins);
}

inline void check_buffers(const LovaszSoftmaxArguments& arguments, std::int64_t needed_bytes) {
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    const bool empty = sizes.images * sizes.height * sizes.width == 0;
    require(empty || arguments.logits != nullptr, "lovasz_softmax: logits is a null pointer");
    require(empty || arguments.target != nullptr, "lovasz_softmax: target is a null pointer");
    require(empty || sizes.method == LovaszMethod::sort || arguments.weights != nullptr,
            "lovasz_softmax: weights is a null pointer");
    require(arguments.workspace_bytes >= needed_bytes, "lovasz_softmax: the workspace has ", arguments.workspace_bytes,
            " bytes; expected ", needed_bytes);
}

inline void check_look_up(const LovaszSoftmaxArguments& arguments, std::int64_t needed_bytes) {
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    check_buffers(arguments, needed_bytes);
    require(sizes.method == LovaszMethod::histogram, "lovasz_softmax: only the histogram's gradient is looked up");
    require(arguments.scale != nullptr, "lovasz_softmax: scale is a null pointer");
    require(arguments.gradient != nullptr || sizes.images * sizes.height * sizes.width == 0,
            "lovasz_softmax: gradient is a null pointer");
}

inline void check_arguments(const LovaszSoftmaxArguments& arguments, std::int64_t needed_bytes) {
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    check_buffers(arguments, needed_bytes);
    const bool empty = sizes.images * sizes.height * sizes.width == 0;
    const bool writes_gradient = sizes.method == LovaszMethod::sort && sizes.with_gradient;
    require(empty || !writes_gradient || arguments.gradient != nullptr, "lovasz_softmax: gradient is a null pointer");
    if (arguments.classes != LovaszClasses::listed) return;
    for (std::int64_t i = 0; i < arguments.listed_count; ++i) {
        const std::int64_t channel = arguments.listed[i];
        require(channel >= 0 && channel < sizes.channels, "lovasz_softmax: class ", channel, " is outside 0..",
                sizes.channels - 1);
        require(std::count(arguments.listed, arguments.listed + i, channel) == 0, "lovasz_softmax: class ", channel,
                " is listed twice");
    }
}

}  // namespace etnet
