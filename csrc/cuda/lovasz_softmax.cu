// Entry of etnet/ops/lovasz_softmax_cuda.hpp: checks, counts of the classes, then one method per segment, then the sum.
#include <cub/block/block_reduce.cuh>
#include <vector>

#include "etnet/lovasz_check.hpp"
#include "etnet/ops/lovasz_softmax_cuda.hpp"
#include "lovasz_methods.cuh"

namespace etnet {
namespace {

constexpr std::int64_t kMaximalSegment = (std::int64_t{1} << 31) - 1;  // a place has 31 bits beside the member bit
constexpr std::int64_t kCountedPerBlock = 16384;
constexpr int kFewClasses = 1024;  // whose counts fit a block's shared memory
constexpr int kListedPerLaunch = 128;

struct Memory {
    unsigned long long* class_count;  // [segments, C]
    std::int32_t* listed;             // [C] 1 for a listed class
    int* broken;                      // [1]
    double* class_loss;               // [segments, C]
    std::int64_t cleared_bytes;       // everything above starts as zero
    DeviceShare* shares;              // [segments, C]
    std::uint32_t* valid;             // [segments]
    DeviceSort sort;
    std::uint32_t* counts;  // [tables, 2, bins] of the segment in work
    std::int64_t bytes;
};

std::int64_t segments_of(const LovaszSoftmaxSizes& sizes) {
    return sizes.per_image ? sizes.images : 1;
}

std::int64_t weights_of_segment(const LovaszSoftmaxSizes& sizes) {
    return (sizes.channels == 2 ? 1 : sizes.channels) * 2 * sizes.bins;
}

Memory lay_out(void* base, const LovaszSoftmaxSizes& sizes) {
    const std::int64_t tasks = segments_of(sizes) * sizes.channels;
    DeviceLayout layout(base);
    Memory memory{};
    memory.class_count = layout.take<unsigned long long>(tasks);
    memory.listed = layout.take<std::int32_t>(sizes.channels);
    memory.broken = layout.take<int>(1);
    memory.class_loss = layout.take<double>(tasks);
    memory.cleared_bytes = layout.used();
    memory.shares = layout.take<DeviceShare>(tasks);
    memory.valid = layout.take<std::uint32_t>(segments_of(sizes));
    if (sizes.method == LovaszMethod::sort) {
        memory.sort = lay_out_sort(layout, sizes);
    } else {
        memory.counts = layout.take<std::uint32_t>(weights_of_segment(sizes));
    }
    memory.bytes = layout.used();
    return memory;
}

void check_device_sizes(const LovaszSoftmaxSizes& sizes) {
    check_sizes(sizes);
    const std::int64_t pixels = sizes.height * sizes.width * (sizes.per_image ? 1 : sizes.images);
    require(pixels <= kMaximalSegment, "lovasz_softmax: ", pixels,
            " pixels are ranked together on the device; expected ", "at most ", kMaximalSegment,
            "; split the batch or use per_image");
}

struct ListedClasses {
    std::int32_t count;
    std::int32_t channels[kListedPerLaunch];
};

__global__ void mark_listed(ListedClasses classes, std::int32_t* listed) {
    if (static_cast<std::int32_t>(threadIdx.x) < classes.count) listed[classes.channels[threadIdx.x]] = 1;
}

// Adds up the pixels of each class in a segment; an invalid target breaks the result.
__global__ void __launch_bounds__(kThreads) count_classes(DeviceSegment segment, unsigned long long* class_count) {
    __shared__ std::uint32_t table[kFewClasses];
    const bool few = segment.channels <= kFewClasses;
    for (std::int32_t i = threadIdx.x; few && i < segment.channels; i += kThreads) table[i] = 0;
    __syncthreads();  // the table is empty
    const std::uint32_t step = gridDim.x * kThreads;
    for (std::uint32_t place = blockIdx.x * kThreads + threadIdx.x; place < segment.size; place += step) {
        const std::int32_t label = segment.label(place);
        if (label == -2) *segment.broken = 1;
        if (label < 0) continue;
        if (few) {
            atomicAdd(&table[label], 1U);
        } else {
            atomicAdd(&class_count[label], 1ULL);
        }
    }
    __syncthreads();  // the table is complete
    for (std::int32_t i = threadIdx.x; few && i < segment.channels; i += kThreads) {
        if (table[i] != 0) atomicAdd(&class_count[i], static_cast<unsigned long long>(table[i]));
    }
}

// Total and weight of every (segment, class); the weights of all classes of all segments add up to 1. One block.
__global__ void __launch_bounds__(kThreads)
    share_out(std::int64_t segments, std::int64_t channels, LovaszClasses classes,
              const unsigned long long* class_count, const std::int32_t* listed, DeviceShare* shares,
              std::uint32_t* valid) {
    using Reduce = cub::BlockReduce<std::uint32_t, kThreads>;
    __shared__ typename Reduce::TempStorage room;
    __shared__ std::uint32_t counted_segments;
    std::uint32_t mine = 0;
    for (std::int64_t segment = threadIdx.x; segment < segments; segment += kThreads) {
        unsigned long long pixels = 0;
        for (std::int64_t channel = 0; channel < channels; ++channel)
            pixels += class_count[segment * channels + channel];
        valid[segment] = static_cast<std::uint32_t>(pixels);
        mine += pixels > 0 ? 1 : 0;
    }
    const std::uint32_t sum = Reduce(room).Sum(mine);
    if (threadIdx.x == 0) counted_segments = sum;
    __syncthreads();  // counted_segments is known
    for (std::int64_t segment = threadIdx.x; segment < segments; segment += kThreads) {
        const auto is_counted = [&](std::int64_t channel) {
            if (valid[segment] == 0) return false;
            if (classes == LovaszClasses::present) return class_count[segment * channels + channel] > 0;
            return classes == LovaszClasses::all || listed[channel] != 0;
        };
        std::int64_t counted = 0;
        for (std::int64_t channel = 0; channel < channels; ++channel) counted += is_counted(channel) ? 1 : 0;
        const double weight = 1.0 / (static_cast<double>(counted) * static_cast<double>(counted_segments));
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            shares[segment * channels + channel] = {static_cast<double>(class_count[segment * channels + channel]),
                                                    is_counted(channel) ? weight : 0.0};
        }
    }
}

// The loss, in a fixed order; NaN if anything was broken. One block.
__global__ void __launch_bounds__(kThreads)
    finish(const double* class_loss, std::int64_t tasks, const int* broken, float* loss) {
    using Reduce = cub::BlockReduce<double, kThreads>;
    __shared__ typename Reduce::TempStorage room;
    double sum = 0.0;
    for (std::int64_t task = threadIdx.x; task < tasks; task += kThreads) sum += class_loss[task];
    sum = Reduce(room).Sum(sum);
    if (threadIdx.x == 0) *loss = *broken != 0 ? nanf("") : static_cast<float>(sum);
}

__global__ void __launch_bounds__(kThreads) spread_nan(float* numbers, std::int64_t count, const int* broken) {
    if (*broken == 0) return;
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
        numbers[i] = nanf("");
    }
}

class DeviceLoss {
  public:
    DeviceLoss(const LovaszSoftmaxArguments& arguments, cudaStream_t stream)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          pixels_(sizes_.height * sizes_.width),
          images_(sizes_.per_image ? 1 : sizes_.images),
          memory_(lay_out(arguments.workspace, sizes_)),
          stream_(stream) {}

    void run(float* loss) const {
        check_cuda(cudaMemsetAsync(arguments_.workspace, 0, static_cast<std::size_t>(memory_.cleared_bytes), stream_),
                   "lovasz_softmax: clear the workspace");
        const std::int64_t segments = pixels_ == 0 || sizes_.images == 0 ? 0 : segments_of(sizes_);
        const std::vector<char> wanted = mark_wanted();
        for (std::int64_t i = 0; i < segments; ++i) {
            const DeviceSegment segment = segment_at(i);
            launch("lovasz_softmax: count_classes", count_classes, divide_up(segment.size, kCountedPerBlock), kThreads,
                   0, stream_, segment, memory_.class_count + i * sizes_.channels);
        }
        launch("lovasz_softmax: share_out", share_out, 1, kThreads, 0, stream_, segments, sizes_.channels,
               arguments_.classes, memory_.class_count, memory_.listed, memory_.shares, memory_.valid);
        for (std::int64_t i = 0; i < segments; ++i) run_segment(i, wanted);
        launch("lovasz_softmax: finish", finish, 1, kThreads, 0, stream_, memory_.class_loss,
               segments * sizes_.channels, memory_.broken, loss);
        if (sizes_.method == LovaszMethod::histogram) {
            spread(arguments_.weights, segments_of(sizes_) * weights_of_segment(sizes_));
        } else if (gradient() != nullptr && segments > 0) {
            spread(gradient(), sizes_.images * sizes_.channels * pixels_);
        }
    }

    void look_up() const {
        for (std::int64_t i = 0; i < segments_of(sizes_); ++i) {
            enqueue_look_up(segment_at(i), arguments_.logits_type, sizes_.bins,
                            arguments_.weights + i * weights_of_segment(sizes_), arguments_.scale, stream_);
        }
    }

  private:
    float* gradient() const {
        const bool writes = sizes_.method == LovaszMethod::histogram || sizes_.with_gradient;
        return writes ? arguments_.gradient : nullptr;
    }

    void spread(float* numbers, std::int64_t count) const {
        constexpr std::int64_t kPerBlock = 4096;
        launch("lovasz_softmax: spread_nan", spread_nan, divide_up(count, kPerBlock), kThreads, 0, stream_, numbers,
               count, memory_.broken);
    }

    // Which classes may count, known to the host; listed classes are also marked on the device.
    std::vector<char> mark_wanted() const {
        const bool listed = arguments_.classes == LovaszClasses::listed;
        std::vector<char> wanted(static_cast<std::size_t>(sizes_.channels), listed ? 0 : 1);
        for (std::int64_t first = 0; listed && first < arguments_.listed_count; first += kListedPerLaunch) {
            ListedClasses chunk{};
            for (std::int64_t i = first; i < arguments_.listed_count && chunk.count < kListedPerLaunch; ++i) {
                chunk.channels[chunk.count++] = static_cast<std::int32_t>(arguments_.listed[i]);
                wanted[static_cast<std::size_t>(arguments_.listed[i])] = 1;
            }
            launch("lovasz_softmax: mark_listed", mark_listed, 1, kListedPerLaunch, 0, stream_, chunk, memory_.listed);
        }
        return wanted;
    }

    DeviceSegment segment_at(std::int64_t index) const {
        const std::int64_t first = index * images_ * pixels_;  // pixel of the batch
        const std::int64_t logit_bytes = arguments_.logits_type == LogitsType::float32 ? 4 : 2;
        const std::int64_t target_bytes = arguments_.target_type == TargetType::int64   ? 8
                                          : arguments_.target_type == TargetType::int32 ? 4
                                                                                        : 1;
        DeviceSegment segment{};
        segment.logits = static_cast<const std::byte*>(arguments_.logits) + first * sizes_.channels * logit_bytes;
        segment.target = static_cast<const std::byte*>(arguments_.target) + first * target_bytes;
        segment.gradient = gradient() == nullptr ? nullptr : gradient() + first * sizes_.channels;
        segment.shares = memory_.shares + index * sizes_.channels;
        segment.valid = memory_.valid + index;
        segment.broken = memory_.broken;
        segment.size = static_cast<std::uint32_t>(images_ * pixels_);
        segment.pixels = static_cast<std::uint32_t>(pixels_);
        segment.channels = sizes_.channels;
        segment.pixel_stride = sizes_.channels_last ? sizes_.channels : 1;
        segment.channel_stride = sizes_.channels_last ? 1 : pixels_;
        segment.target_type = arguments_.target_type;
        segment.has_ignore_index = arguments_.has_ignore_index;
        segment.ignore_index = arguments_.ignore_index;
        return segment;
    }

    void run_segment(std::int64_t index, const std::vector<char>& wanted) const {
        const DeviceSegment segment = segment_at(index);
        double* class_loss = memory_.class_loss + index * sizes_.channels;
        if (sizes_.method == LovaszMethod::sort) {
            enqueue_sort(segment, arguments_.logits_type, wanted, memory_.sort, class_loss, stream_);
        } else {
            enqueue_histogram(segment, arguments_.logits_type, sizes_.bins, memory_.counts,
                              arguments_.weights + index * weights_of_segment(sizes_), class_loss, stream_);
        }
    }

    const LovaszSoftmaxArguments& arguments_;
    const LovaszSoftmaxSizes& sizes_;
    std::int64_t pixels_;
    std::int64_t images_;
    Memory memory_;
    cudaStream_t stream_;
};

}  // namespace

std::int64_t lovasz_softmax_cuda_workspace_bytes(const LovaszSoftmaxSizes& sizes) {
    check_device_sizes(sizes);
    return lay_out(nullptr, sizes).bytes;
}

void lovasz_softmax_cuda(const LovaszSoftmaxArguments& arguments, float* loss, void* stream) {
    require(loss != nullptr, "lovasz_softmax: loss is a null pointer");
    check_arguments(arguments, lovasz_softmax_cuda_workspace_bytes(arguments.sizes));
    DeviceLoss(arguments, static_cast<cudaStream_t>(stream)).run(loss);
}

void lovasz_softmax_look_up_cuda(const LovaszSoftmaxArguments& arguments, void* stream) {
    check_device_sizes(arguments.sizes);
    check_look_up(arguments, 0);
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    if (sizes.images * sizes.height * sizes.width > 0) {
        DeviceLoss(arguments, static_cast<cudaStream_t>(stream)).look_up();
    }
}

}  // namespace etnet
