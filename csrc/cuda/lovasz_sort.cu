// LovaszMethod::sort for CUDA: keys, radix sort over the 30 bits that differ, then a scan fused with the gradient.
#include <algorithm>
#include <cub/block/block_load.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/device/device_radix_sort.cuh>

#include "lovasz_methods.cuh"

namespace etnet {
namespace {

constexpr int kItems = 8;
constexpr int kTile = kThreads * kItems;  // ranks that one block weighs
constexpr int kScanThreads = 1024;
constexpr std::uint32_t kMember = 1U << 31;

// Key and place of every pixel; ignored pixels get the key that sorts behind all others.
template <class Logit>
__global__ void __launch_bounds__(kThreads)
    list_two(DeviceSegment segment, std::uint32_t* keys, std::uint32_t* places) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int32_t label = segment.label(place);
    const float error = error_of_two<Logit>(segment, place, label);
    if (label == -2 || (label >= 0 && isnan(error))) *segment.broken = 1;
    keys[place] = label >= 0 && !isnan(error) ? key_of(error) : kIgnoredKey;
    places[place] = place | (label == 1 ? kMember : 0U);
}

template <class Logit>
__global__ void __launch_bounds__(kThreads) find_scales(DeviceSegment segment, SoftmaxScale* scales) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int32_t label = segment.label(place);
    const SoftmaxScale scale =
        softmax_scale(segment, static_cast<const Logit*>(segment.logits) + segment.offset(place));
    if (label == -2 || (label >= 0 && isnan(scale.inverse_sum))) *segment.broken = 1;
    scales[place] = scale;
}

template <class Logit>
__global__ void __launch_bounds__(kThreads)
    list_class(DeviceSegment segment, std::int32_t channel, const SoftmaxScale* scales, std::uint32_t* keys,
               std::uint32_t* places) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int32_t label = segment.label(place);
    const Logit logit =
        static_cast<const Logit*>(segment.logits)[segment.offset(place) + channel * segment.channel_stride];
    const float chosen = probability(scales[place], logit);
    const float error = label == channel ? 1.0F - chosen : chosen;
    keys[place] = label >= 0 && !isnan(error) ? key_of(error) : kIgnoredKey;
    places[place] = place | (label == channel ? kMember : 0U);
}

__global__ void __launch_bounds__(kThreads)
    count_members(const std::uint32_t* places, const std::uint32_t* valid, std::uint32_t* members) {
    using Reduce = cub::BlockReduce<std::uint32_t, kThreads>;
    __shared__ typename Reduce::TempStorage room;
    std::uint32_t count = 0;
    for (int item = 0; item < kItems; ++item) {
        const std::uint32_t rank = blockIdx.x * kTile + item * kThreads + threadIdx.x;
        if (rank < *valid) count += places[rank] >> 31;
    }
    const std::uint32_t sum = Reduce(room).Sum(count);
    if (threadIdx.x == 0) members[blockIdx.x] = sum;
}

// Turns the members in each tile into those before it; one block.
__global__ void __launch_bounds__(kScanThreads) scan_members(std::uint32_t* members, std::uint32_t tiles) {
    using Scan = cub::BlockScan<std::uint32_t, kScanThreads>;
    __shared__ typename Scan::TempStorage room;
    std::uint32_t before = 0;
    for (std::uint32_t first = 0; first < tiles; first += kScanThreads) {
        const std::uint32_t tile = first + threadIdx.x;
        std::uint32_t count = tile < tiles ? members[tile] : 0;
        std::uint32_t sum = 0;
        Scan(room).ExclusiveSum(count, count, sum);
        if (tile < tiles) members[tile] = before + count;
        before += sum;
        __syncthreads();  // `room` is used again
    }
}

// What one rank adds; the two ways of weighing share the scan below.
struct WeighTwo {
    // Returns the share of the loss and writes the gradient of both classes.
    __device__ static double weigh(const DeviceSegment& segment, std::int32_t, float error, std::uint32_t place,
                                   bool member, double members_before, double others_before) {
        const int label = member ? 1 : 0;
        const DeviceShare own = segment.shares[label];
        const DeviceShare other = segment.shares[1 - label];
        const double slope = slope_of_two({own.weight, own.total, member ? members_before : others_before},
                                          {other.weight, other.total, member ? others_before : members_before});
        if (segment.gradient != nullptr) {
            const float change = static_cast<float>(slope) * (error * (1.0F - error));
            float* pixel = segment.gradient + segment.offset(place);
            pixel[label * segment.channel_stride] = -change;
            pixel[(1 - label) * segment.channel_stride] = change;
        }
        return slope * static_cast<double>(error);
    }
    __device__ static void clear(const DeviceSegment& segment, std::int32_t, std::uint32_t place) {
        float* pixel = segment.gradient + segment.offset(place);
        pixel[0] = 0.0F;
        pixel[segment.channel_stride] = 0.0F;
    }
};

struct WeighClass {
    // Returns the share of the loss and leaves d(channel) in the gradient.
    __device__ static double weigh(const DeviceSegment& segment, std::int32_t channel, float error, std::uint32_t place,
                                   bool member, double members_before, double others_before) {
        const DeviceShare share = segment.shares[channel];
        const double weight = share.weight * (member ? foreground_weight(share.total, others_before)
                                                     : background_weight(share.total, members_before, others_before));
        if (segment.gradient != nullptr) {
            segment.gradient[segment.offset(place) + channel * segment.channel_stride] =
                static_cast<float>(member ? -weight : weight);
        }
        return weight * static_cast<double>(error);
    }
    __device__ static void clear(const DeviceSegment& segment, std::int32_t channel, std::uint32_t place) {
        segment.gradient[segment.offset(place) + channel * segment.channel_stride] = 0.0F;
    }
};

template <class Weigh>
__global__ void __launch_bounds__(kThreads)
    weigh_ranks(DeviceSegment segment, std::int32_t channel, const std::uint32_t* keys, const std::uint32_t* places,
                const std::uint32_t* members, double* tile_loss) {
    using Load = cub::BlockLoad<std::uint32_t, kThreads, kItems, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
    using Scan = cub::BlockScan<std::uint32_t, kThreads>;
    using Reduce = cub::BlockReduce<double, kThreads>;
    __shared__ union {
        typename Load::TempStorage load;
        typename Scan::TempStorage scan;
        typename Reduce::TempStorage reduce;
    } room;
    if (*segment.broken != 0) return;  // the same for all threads; the gradient is filled with NaN later
    const std::uint32_t first = blockIdx.x * kTile;
    const auto in_tile = static_cast<int>(min(segment.size - first, static_cast<std::uint32_t>(kTile)));
    std::uint32_t key[kItems];
    std::uint32_t place[kItems];
    Load(room.load).Load(keys + first, key, in_tile, 0U);
    __syncthreads();  // `room` is used again
    Load(room.load).Load(places + first, place, in_tile, 0U);
    __syncthreads();  // `room` is used by the scan

    const std::uint32_t rank = first + threadIdx.x * kItems;
    const std::uint32_t valid = *segment.valid;
    std::uint32_t count = 0;
#pragma unroll
    for (int item = 0; item < kItems; ++item) count += rank + item < valid ? place[item] >> 31 : 0U;
    std::uint32_t before = 0;
    Scan(room.scan).ExclusiveSum(count, before);
    __syncthreads();  // `room` is used by the sum
    before += members[blockIdx.x];

    double loss = 0.0;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
        const std::uint32_t here = rank + item;
        if (here >= segment.size) continue;
        const std::uint32_t pixel = place[item] & ~kMember;
        const bool member = (place[item] & kMember) != 0;
        if (here < valid) {
            loss += Weigh::weigh(segment, channel, error_of(key[item]), pixel, member, static_cast<double>(before),
                                 static_cast<double>(here - before));
            before += member ? 1 : 0;
        } else if (segment.gradient != nullptr) {
            Weigh::clear(segment, channel, pixel);
        }
    }
    const double sum = Reduce(room.reduce).Sum(loss);
    if (threadIdx.x == 0) tile_loss[blockIdx.x] = sum;
}

// Sums the tiles' losses in a fixed order; one block.
__global__ void __launch_bounds__(kScanThreads) sum_tiles(const double* tile_loss, std::uint32_t tiles, double* loss) {
    using Reduce = cub::BlockReduce<double, kScanThreads>;
    __shared__ typename Reduce::TempStorage room;
    double sum = 0.0;
    for (std::uint32_t tile = threadIdx.x; tile < tiles; tile += kScanThreads) sum += tile_loss[tile];
    sum = Reduce(room).Sum(sum);
    if (threadIdx.x == 0) *loss = sum;
}

// gradient(c) = p(c) (d(c) - sum_k p(k) d(k)), where the gradient holds d.
template <class Logit>
__global__ void __launch_bounds__(kThreads) chain_through_softmax(DeviceSegment segment, const SoftmaxScale* scales) {
    const std::uint32_t place = blockIdx.x * kThreads + threadIdx.x;
    if (place >= segment.size) return;
    const std::int64_t offset = segment.offset(place);
    const Logit* logits = static_cast<const Logit*>(segment.logits) + offset;
    float* gradient = segment.gradient + offset;
    const bool counts = segment.label(place) >= 0;
    const SoftmaxScale scale = scales[place];
    float mean = 0.0F;
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        const std::int64_t at = channel * segment.channel_stride;
        if (segment.shares[channel].weight > 0.0) mean += probability(scale, logits[at]) * gradient[at];
    }
    for (std::int64_t channel = 0; channel < segment.channels; ++channel) {
        const std::int64_t at = channel * segment.channel_stride;
        const float slope = segment.shares[channel].weight > 0.0 ? gradient[at] : 0.0F;
        gradient[at] = counts ? probability(scale, logits[at]) * (slope - mean) : 0.0F;
    }
}

std::int64_t segment_pixels(const LovaszSoftmaxSizes& sizes) {
    return sizes.height * sizes.width * (sizes.per_image ? 1 : sizes.images);
}

cudaError_t radix_sort(void* temporary, std::size_t& bytes, cub::DoubleBuffer<std::uint32_t>& keys,
                       cub::DoubleBuffer<std::uint32_t>& places, std::uint32_t count, cudaStream_t stream) {
    return cub::DeviceRadixSort::SortPairs(temporary, bytes, keys, places, count, 0, kSortKeyBits, stream);
}

// Sorts what list_* wrote and weighs it; the loss goes to *loss.
template <class Weigh>
void sort_and_weigh(const DeviceSegment& segment, std::int32_t channel, const DeviceSort& memory, double* loss,
                    cudaStream_t stream) {
    cub::DoubleBuffer<std::uint32_t> keys(memory.keys[0], memory.keys[1]);
    cub::DoubleBuffer<std::uint32_t> places(memory.places[0], memory.places[1]);
    std::size_t bytes = memory.temporary_bytes;
    check_cuda(radix_sort(memory.temporary, bytes, keys, places, segment.size, stream), "lovasz_softmax: radix sort");
    const std::int64_t tiles = divide_up(segment.size, kTile);
    launch("lovasz_softmax: count_members", count_members, tiles, kThreads, 0, stream, places.Current(), segment.valid,
           memory.members);
    launch("lovasz_softmax: scan_members", scan_members, 1, kScanThreads, 0, stream, memory.members,
           static_cast<std::uint32_t>(tiles));
    launch("lovasz_softmax: weigh_ranks", weigh_ranks<Weigh>, tiles, kThreads, 0, stream, segment, channel,
           keys.Current(), places.Current(), memory.members, memory.tile_loss);
    launch("lovasz_softmax: sum_tiles", sum_tiles, 1, kScanThreads, 0, stream, memory.tile_loss,
           static_cast<std::uint32_t>(tiles), loss);
}

template <class Logit>
void enqueue(const DeviceSegment& segment, const std::vector<char>& wanted, const DeviceSort& memory,
             double* class_loss, cudaStream_t stream) {
    const std::int64_t blocks = divide_up(segment.size, kThreads);
    if (segment.channels == 2) {
        launch("lovasz_softmax: list_two", list_two<Logit>, blocks, kThreads, 0, stream, segment, memory.keys[0],
               memory.places[0]);
        sort_and_weigh<WeighTwo>(segment, 0, memory, class_loss, stream);
        return;
    }
    launch("lovasz_softmax: find_scales", find_scales<Logit>, blocks, kThreads, 0, stream, segment, memory.scales);
    for (std::int32_t channel = 0; channel < segment.channels; ++channel) {
        if (wanted[static_cast<std::size_t>(channel)] == 0) continue;
        launch("lovasz_softmax: list_class", list_class<Logit>, blocks, kThreads, 0, stream, segment, channel,
               memory.scales, memory.keys[0], memory.places[0]);
        sort_and_weigh<WeighClass>(segment, channel, memory, class_loss + channel, stream);
    }
    if (segment.gradient == nullptr) return;
    launch("lovasz_softmax: chain_through_softmax", chain_through_softmax<Logit>, blocks, kThreads, 0, stream, segment,
           memory.scales);
}

}  // namespace

DeviceSort lay_out_sort(DeviceLayout& layout, const LovaszSoftmaxSizes& sizes) {
    const std::int64_t pixels = segment_pixels(sizes);
    DeviceSort memory{};
    for (int side = 0; side < 2; ++side) {
        memory.keys[side] = layout.take<std::uint32_t>(pixels);
        memory.places[side] = layout.take<std::uint32_t>(pixels);
    }
    if (sizes.channels != 2) memory.scales = layout.take<SoftmaxScale>(pixels);
    memory.members = layout.take<std::uint32_t>(divide_up(pixels, kTile));
    memory.tile_loss = layout.take<double>(divide_up(pixels, kTile));
    cub::DoubleBuffer<std::uint32_t> keys(memory.keys[0], memory.keys[1]);
    cub::DoubleBuffer<std::uint32_t> places(memory.places[0], memory.places[1]);
    check_cuda(radix_sort(nullptr, memory.temporary_bytes, keys, places, static_cast<std::uint32_t>(pixels), nullptr),
               "lovasz_softmax: size of the radix sort's memory");
    memory.temporary = layout.take<std::byte>(static_cast<std::int64_t>(memory.temporary_bytes));
    return memory;
}

void enqueue_sort(const DeviceSegment& segment, LogitsType type, const std::vector<char>& wanted,
                  const DeviceSort& memory, double* class_loss, cudaStream_t stream) {
    if (type == LogitsType::float32) {
        enqueue<float>(segment, wanted, memory, class_loss, stream);
    } else if (type == LogitsType::float16) {
        enqueue<__half>(segment, wanted, memory, class_loss, stream);
    } else {
        enqueue<__nv_bfloat16>(segment, wanted, memory, class_loss, stream);
    }
}

}  // namespace etnet
