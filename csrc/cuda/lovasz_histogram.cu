// LovaszMethod::histogram for CUDA: count errors per bin, weigh the bins, look the weight of each pixel up.
#include <algorithm>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "lovasz_methods.cuh"

namespace etnet {
namespace {

constexpr int kCountThreads = 512;
constexpr std::int64_t kPixelsPerBlock = 16384;   // enough for the flush of a block's table to be cheap beside them
constexpr std::int64_t kSharedBytes = 48 * 1024;  // what every device grants without being asked

// A place in the table [2, bins] for each pixel of a block's part of the segment, through `error_at(place, label)`.
template <class ErrorAt>
__device__ void count_errors(const DeviceSegment& segment, std::int32_t member, std::int32_t bins, std::uint32_t* table,
                             const ErrorAt& error_at) {
    const float last_bin = static_cast<float>(bins - 1);
    const std::uint32_t step = gridDim.x * blockDim.x;  // size < 2^31 and step < 2^31: no overflow
    for (std::uint32_t place = blockIdx.x * blockDim.x + threadIdx.x; place < segment.size; place += step) {
        const std::int32_t label = segment.label(place);
        const float error = label >= 0 ? error_at(place, label) : 0.0F;
        if (label == -2 || isnan(error)) *segment.broken = 1;
        if (label < 0 || isnan(error)) continue;
        // Errors lie in 0..1, so that the bin lies in 0..bins-1.
        atomicAdd(&table[bin_of(error, last_bin) + (label == member ? bins : 0)], 1U);
    }
}

// Counts into shared memory where the table fits, and adds it to `counts`; integer sums do not depend on their order.
template <bool shared, class ErrorAt>
__device__ void count_through(const DeviceSegment& segment, std::int32_t member, std::int32_t bins,
                              std::uint32_t* counts, const ErrorAt& error_at) {
    if constexpr (shared) {
        extern __shared__ std::uint32_t table[];
        for (std::int32_t i = threadIdx.x; i < 2 * bins; i += blockDim.x) table[i] = 0;
        __syncthreads();  // the table is empty
        count_errors(segment, member, bins, table, error_at);
        __syncthreads();  // the table is complete
        for (std::int32_t i = threadIdx.x; i < 2 * bins; i += blockDim.x) {
            if (table[i] != 0) atomicAdd(&counts[i], table[i]);
        }
    } else {
        count_errors(segment, member, bins, counts, error_at);
    }
}

template <class Logit, bool shared>
__global__ void __launch_bounds__(kCountThreads)
    count_two(DeviceSegment segment, std::int32_t bins, std::uint32_t* counts) {
    count_through<shared>(segment, 1, bins, counts, [&](std::uint32_t place, std::int32_t label) {
        return error_of_two<Logit>(segment, place, label);
    });
}

template <class Logit, bool shared>
__global__ void __launch_bounds__(kCountThreads)
    count_class(DeviceSegment segment, std::int32_t channel, std::int32_t bins, std::uint32_t* counts) {
    count_through<shared>(segment, channel, bins, counts, [&](std::uint32_t place, std::int32_t label) {
        const Logit* logits = static_cast<const Logit*>(segment.logits) + segment.offset(place);
        const float chosen = probability(softmax_scale(segment, logits), logits[channel * segment.channel_stride]);
        return label == channel ? 1.0F - chosen : chosen;
    });
}

struct BinWeights {
    double member;
    double other;
};

// Weights of the two kinds of pixels in a bin, for all classes but two: kinds are foreground and background.
__device__ BinWeights weigh_class_bin(const DeviceShare* share, const Bin& bin) {
    if (share->weight == 0.0) return {0.0, 0.0};
    return {bin.foreground > 0.0 ? share->weight * bin_foreground_weight(bin) : 0.0,
            bin.background > 0.0 ? share->weight * bin_background_weight(bin) : 0.0};
}

// For two classes: kinds are the labels, and each is the foreground of one class and the background of the other.
__device__ BinWeights weigh_bin_of_two(const DeviceShare* shares, const Bin& bin) {
    const Bin mirrored{shares[0].total, bin.background_before, bin.foreground_before, bin.background, bin.foreground};
    const BinWeights one = weigh_class_bin(shares + 1, bin);
    const BinWeights zero = weigh_class_bin(shares, mirrored);
    return {one.member + zero.other, one.other + zero.member};
}

// One block turns the counts [2, bins] of a table into weights and sums the loss. Bins are taken from the highest error
// down, kThreads at a time. `shares` belong to the class, or to both classes if `two`.
template <bool two>
__global__ void __launch_bounds__(kThreads) weigh_bins(const DeviceShare* shares, std::int32_t bins,
                                                       const std::uint32_t* counts, float* weights, double* loss) {
    using Scan = cub::BlockScan<std::uint32_t, kThreads>;
    using Reduce = cub::BlockReduce<double, kThreads>;
    __shared__ union {
        typename Scan::TempStorage scan;
        typename Reduce::TempStorage reduce;
    } room;
    std::uint32_t members_before = 0;
    std::uint32_t others_before = 0;
    double sum = 0.0;
    for (std::int32_t first = 0; first < bins; first += kThreads) {
        const std::int32_t i = bins - 1 - first - static_cast<std::int32_t>(threadIdx.x);
        const std::uint32_t others = i >= 0 ? counts[i] : 0;
        const std::uint32_t members = i >= 0 ? counts[bins + i] : 0;
        std::uint32_t others_here = 0;
        std::uint32_t others_sum = 0;
        std::uint32_t members_here = 0;
        std::uint32_t members_sum = 0;
        Scan(room.scan).ExclusiveSum(others, others_here, others_sum);
        __syncthreads();  // `room` is used again
        Scan(room.scan).ExclusiveSum(members, members_here, members_sum);
        __syncthreads();  // `room` is used again
        if (i >= 0) {
            const Bin bin{shares[two ? 1 : 0].total, static_cast<double>(members_before + members_here),
                          static_cast<double>(others_before + others_here), static_cast<double>(members),
                          static_cast<double>(others)};
            const BinWeights weight = two ? weigh_bin_of_two(shares, bin) : weigh_class_bin(shares, bin);
            weights[i] = static_cast<float>(weight.other);
            weights[bins + i] = static_cast<float>(weight.member);
            sum += static_cast<double>(i) / static_cast<double>(bins - 1) *
                   (weight.other * bin.background + weight.member * bin.foreground);
        }
        others_before += others_sum;
        members_before += members_sum;
    }
    sum = Reduce(room.reduce).Sum(sum);
    if (threadIdx.x == 0) *loss = sum;
}

template <class Logit>
__global__ void __launch_bounds__(kThreads)
    look_up_two(DeviceSegment segment, std::int32_t bins, const float* weights, const float* scale) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int32_t label = segment.label(place);
    float change = 0.0F * weights[0];  // 0, or NaN where all weights are
    if (label >= 0) {
        const float error = error_of_two<Logit>(segment, place, label);
        const std::int32_t bin = bin_of(error, static_cast<float>(bins - 1));
        change = *scale * (error * (1.0F - error)) * weights[label * bins + bin];
    }
    float* pixel = segment.gradient + segment.offset(place);
    pixel[0] = label == 1 ? change : -change;
    pixel[segment.channel_stride] = label == 1 ? -change : change;
}

// d(channel) of a pixel with this probability.
__device__ float slope_of_class(std::int64_t channel, std::int32_t label, float chosen, std::int32_t bins,
                                const float* weights) {
    const bool member = label == channel;
    const float error = member ? 1.0F - chosen : chosen;
    const std::int32_t bin = bin_of(error, static_cast<float>(bins - 1));
    const float weight = weights[channel * 2 * bins + (member ? bins : 0) + bin];
    return member ? -weight : weight;
}

// At least 4 blocks at a time: without saying so, the compiler aims at more and runs out of registers.
template <class Logit>
__global__ void __launch_bounds__(kThreads, 4)
    look_up_many(DeviceSegment segment, std::int32_t bins, const float* weights, const float* scale) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int32_t label = segment.label(place);
    const std::int64_t offset = segment.offset(place);
    const Logit* logits = static_cast<const Logit*>(segment.logits) + offset;
    float* gradient = segment.gradient + offset;
    const SoftmaxScale softmax = softmax_scale(segment, logits);
    float mean = 0.0F;
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        const float chosen = probability(softmax, logits[channel * segment.channel_stride]);
        mean += chosen * slope_of_class(channel, label, chosen, bins, weights);
    }
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        const std::int64_t at = channel * segment.channel_stride;
        const float chosen = probability(softmax, logits[at]);
        const float slope = slope_of_class(channel, label, chosen, bins, weights);
        // Ignored: 0, or NaN where all weights are.
        gradient[at] = label >= 0 ? *scale * (chosen * (slope - mean)) : 0.0F * weights[0];
    }
}

template <class Logit>
void count(const DeviceSegment& segment, std::int32_t bins, std::uint32_t* counts, cudaStream_t stream) {
    const std::int64_t bytes = 2 * bins * static_cast<std::int64_t>(sizeof(std::uint32_t));
    const bool shared = bytes <= kSharedBytes;
    const std::int64_t blocks = divide_up(segment.size, kPixelsPerBlock);
    const std::size_t shared_bytes = shared ? static_cast<std::size_t>(bytes) : 0;
    if (segment.channels == 2) {
        launch("lovasz_softmax: count_two", shared ? count_two<Logit, true> : count_two<Logit, false>, blocks,
               kCountThreads, shared_bytes, stream, segment, bins, counts);
        return;
    }
    for (std::int32_t channel = 0; channel < segment.channels; ++channel) {
        launch("lovasz_softmax: count_class", shared ? count_class<Logit, true> : count_class<Logit, false>, blocks,
               kCountThreads, shared_bytes, stream, segment, channel, bins,
               counts + static_cast<std::int64_t>(channel) * 2 * bins);
    }
}

template <class Logit>
void look_up(const DeviceSegment& segment, std::int32_t bins, const float* weights, const float* scale,
             cudaStream_t stream) {
    const std::int64_t blocks = divide_up(segment.size, kThreads);
    if (segment.channels == 2) {
        launch("lovasz_softmax: look_up_two", look_up_two<Logit>, blocks, kThreads, 0, stream, segment, bins, weights,
               scale);
    } else {
        launch("lovasz_softmax: look_up_many", look_up_many<Logit>, blocks, kThreads, 0, stream, segment, bins, weights,
               scale);
    }
}

}  // namespace

void enqueue_histogram(const DeviceSegment& segment, LogitsType type, std::int64_t bins, std::uint32_t* counts,
                       float* weights, double* class_loss, cudaStream_t stream) {
    const auto narrow = static_cast<std::int32_t>(bins);  // at most 65536
    const std::int64_t tables = segment.channels == 2 ? 1 : segment.channels;
    check_cuda(cudaMemsetAsync(counts, 0, static_cast<std::size_t>(tables * 2 * bins) * sizeof(std::uint32_t), stream),
               "lovasz_softmax: clear the counts");
    if (type == LogitsType::float32) {
        count<float>(segment, narrow, counts, stream);
    } else if (type == LogitsType::float16) {
        count<__half>(segment, narrow, counts, stream);
    } else {
        count<__nv_bfloat16>(segment, narrow, counts, stream);
    }
    if (segment.channels == 2) {
        launch("lovasz_softmax: weigh_bins", weigh_bins<true>, 1, kThreads, 0, stream, segment.shares, narrow, counts,
               weights, class_loss);
        return;
    }
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        launch("lovasz_softmax: weigh_bins", weigh_bins<false>, 1, kThreads, 0, stream, segment.shares + channel,
               narrow, counts + channel * 2 * bins, weights + channel * 2 * bins, class_loss + channel);
    }
}

void enqueue_look_up(const DeviceSegment& segment, LogitsType type, std::int64_t bins, const float* weights,
                     const float* scale, cudaStream_t stream) {
    const auto narrow = static_cast<std::int32_t>(bins);
    if (type == LogitsType::float32) {
        look_up<float>(segment, narrow, weights, scale, stream);
    } else if (type == LogitsType::float16) {
        look_up<__half>(segment, narrow, weights, scale, stream);
    } else {
        look_up<__nv_bfloat16>(segment, narrow, weights, scale, stream);
    }
}

}  // namespace etnet
