#include <cstring>
#include <type_traits>

#include "half_precision.cuh"
#include "launch.cuh"
#include "warp_sum.cuh"
#include "weighted_block_map.cuh"

namespace etnet {
namespace {

constexpr int kRowThreads = 128;  // four warps, each with a piece of its own
constexpr int kColumnRows = 8;    // pixels that a block of the channels-last passes reads side by side
constexpr std::int64_t kPieces = 64;
constexpr std::int64_t kRowPiece = 2048;  // numbers; a multiple of what a warp reads at once in any format
constexpr std::int64_t kPixelPiece = 64;  // pixels; a multiple of kColumnRows
constexpr int kVectorBytes = 16;
constexpr int kBatch = 4;      // vectors that a thread asks for before it waits for the first
constexpr int kRowBlocks = 8;  // at a time: without saying so, the compiler aims at more and runs out of registers
constexpr int kColumnBlocks = 3;

// `size` neighbouring numbers as they lie in memory, read and written at once: 16 bytes, or one number.
template <class T, int size>
using Raw = std::conditional_t<size == 1, T, uint4>;

template <class T, int size>
__device__ Raw<T, size> load(const T* from) {
    return *reinterpret_cast<const Raw<T, size>*>(from);
}

template <class T, int size>
__device__ void unpack(const Raw<T, size>& raw, float* numbers) {
    T narrow_numbers[size];
    memcpy(narrow_numbers, &raw, sizeof raw);
#pragma unroll
    for (int i = 0; i < size; ++i) numbers[i] = widen(narrow_numbers[i]);
}

// Adds from, or from * other, at first, first + step, ... below end to sums[i] for the i-th number of the vectors.
template <class T, int size, bool product>
__device__ void add_up(const T* from, const T* other, std::int64_t first, std::int64_t end, std::int64_t step,
                       std::int64_t stride, float* sums) {
    constexpr int kTogether = product ? kBatch / 2 : kBatch;
#pragma unroll 1
    for (std::int64_t p = first; p < end; p += kTogether * step) {
        Raw<T, size> raw[kTogether];
        Raw<T, size> raw_other[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; ++k) {
            if (p + k * step >= end) continue;
            raw[k] = load<T, size>(from + (p + k * step) * stride);
            if (product) raw_other[k] = load<T, size>(other + (p + k * step) * stride);
        }
#pragma unroll
        for (int k = 0; k < kTogether; ++k) {
            if (p + k * step >= end) continue;
            float numbers[size];
            float others[size];
            unpack<T, size>(raw[k], numbers);
            if (product) unpack<T, size>(raw_other[k], others);
#pragma unroll
            for (int i = 0; i < size; ++i) sums[i] += product ? numbers[i] * others[i] : numbers[i];
        }
    }
}

template <class T, int size, bool shifted>
__device__ void store_scaled(const Raw<T, size>& raw, const float* scale, const float* shift, T* out) {
    float numbers[size];
    unpack<T, size>(raw, numbers);
    T results[size];
#pragma unroll
    for (int i = 0; i < size; ++i) {
        const float scaled = numbers[i] * scale[i];
        narrow(shifted ? scaled + shift[i] : scaled, results[i]);
    }
    Raw<T, size> packed;
    memcpy(&packed, results, sizeof packed);
    *reinterpret_cast<Raw<T, size>*>(out) = packed;
}

// out = from * scale (+ shift) at the same places.
template <class T, int size, bool shifted>
__device__ void scale_all(const T* from, T* out, std::int64_t first, std::int64_t end, std::int64_t step,
                          std::int64_t stride, const float* scale, const float* shift) {
#pragma unroll 1
    for (std::int64_t p = first; p < end; p += kBatch * step) {
        Raw<T, size> raw[kBatch];
#pragma unroll
        for (int k = 0; k < kBatch; ++k) {
            if (p + k * step < end) raw[k] = load<T, size>(from + (p + k * step) * stride);
        }
#pragma unroll
        for (int k = 0; k < kBatch; ++k) {
            if (p + k * step < end) {
                store_scaled<T, size, shifted>(raw[k], scale, shift, out + (p + k * step) * stride);
            }
        }
    }
}

// The piece of a warp: 0..rows * pieces - 1, or more for the last warps of the grid.
__device__ std::int64_t warp_index() {
    return static_cast<std::int64_t>(blockIdx.x) * (kRowThreads / kWarp) + threadIdx.x / kWarp;
}

// partial [N, C, pieces]: sums of from, or of from * other, over a piece of a row. `size` divides P.
template <class T, int size, bool product>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    sum_rows(DeviceMap<T> map, MapCut cut, std::int64_t rows, float* partial) {
    const std::int64_t index = warp_index();
    if (index >= rows * cut.pieces) return;  // the whole warp
    const std::int64_t row = index / cut.pieces;
    const std::int64_t first = (index - row * cut.pieces) * cut.piece;
    const std::int64_t end = min(cut.pixels, first + cut.piece);
    const T* from = map.from + row * cut.pixels;
    const T* other = product ? map.other + row * cut.pixels : nullptr;
    float sums[size] = {};
    // first, end and the step are multiples of `size`: no vector crosses the end of the row.
    add_up<T, size, product>(from, other, first + threadIdx.x % kWarp * size, end, kWarp * size, 1, sums);
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < size; ++i) sum += sums[i];
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) partial[index] = sum;
}

// out = from * scale, or from * scale + shift.
template <class T, int size, bool shifted>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) scale_rows(DeviceMap<T> map, MapCut cut, std::int64_t rows) {
    const std::int64_t index = rows * cut.pieces - 1 - warp_index();
    if (index < 0) return;
    const std::int64_t row = index / cut.pieces;
    const std::int64_t image = row / cut.channels;
    const std::int64_t first = (index - row * cut.pieces) * cut.piece;
    const std::int64_t end = min(cut.pixels, first + cut.piece);
    const T* from = map.from + row * cut.pixels;
    T* out = map.out + row * cut.pixels;
    float scale[size];
    float shift[size];
    const float row_scale = map.scale[image * map.scale_stride + (row - image * cut.channels)];
    const float row_shift = shifted ? map.shift[row] : 0.0F;
#pragma unroll
    for (int i = 0; i < size; ++i) {
        scale[i] = row_scale;
        shift[i] = row_shift;
    }
    scale_all<T, size, shifted>(from, out, first + threadIdx.x % kWarp * size, end, kWarp * size, 1, scale, shift);
}

// The place of a thread of the channels-last passes: threadIdx.x numbers vectors of channels, threadIdx.y pixels.
struct ColumnPlace {
    std::int64_t image;
    std::int64_t piece;
    std::int64_t channel;  // its first one; may lie behind the last
    std::int64_t first;    // pixel
    std::int64_t end;
};

// `block` numbers (image, piece, group of 32 vectors of channels), groups first.
__device__ ColumnPlace column_place(const MapCut& cut, std::int64_t block, int size) {
    const std::int64_t width = kWarp * size;
    const std::int64_t groups = (cut.channels + width - 1) / width;
    const std::int64_t part = block / groups;
    const std::int64_t image = part / cut.pieces;
    const std::int64_t piece = part - image * cut.pieces;
    const std::int64_t start = piece * cut.piece;
    return {image, piece, (block - part * groups) * width + threadIdx.x * size, start + threadIdx.y,
            min(cut.pixels, start + cut.piece)};
}

// partial [N, pieces, C]: sums over the pixels of a piece. `size` divides C.
template <class T, int size, bool product>
__global__ void __launch_bounds__(kWarp* kColumnRows, kColumnBlocks)
    sum_columns(DeviceMap<T> map, MapCut cut, float* partial) {
    __shared__ float room[kColumnRows][kWarp * size];
    const ColumnPlace place = column_place(cut, blockIdx.x, size);
    const bool inside = place.channel < cut.channels;  // with `size` dividing C, the whole vector is
    float sums[size] = {};
    const std::int64_t start = place.image * cut.pixels * cut.channels + place.channel;
    if (inside) {
        const T* other = product ? map.other + start : nullptr;
        add_up<T, size, product>(map.from + start, other, place.first, place.end, kColumnRows, cut.channels, sums);
    }
#pragma unroll
    for (int i = 0; i < size; ++i) room[threadIdx.y][i * kWarp + threadIdx.x] = sums[i];
    __syncthreads();  // the sums of all pixels are there
    if (threadIdx.y != 0 || !inside) return;
    float* row = partial + (place.image * cut.pieces + place.piece) * cut.channels + place.channel;
#pragma unroll
    for (int i = 0; i < size; ++i) {
        float sum = 0.0F;
#pragma unroll
        for (int y = 0; y < kColumnRows; ++y) sum += room[y][i * kWarp + threadIdx.x];
        row[i] = sum;
    }
}

template <class T, int size, bool shifted>
__global__ void __launch_bounds__(kWarp* kColumnRows, kColumnBlocks) scale_columns(DeviceMap<T> map, MapCut cut) {
    const ColumnPlace place = column_place(cut, static_cast<std::int64_t>(gridDim.x) - 1 - blockIdx.x, size);
    if (place.channel >= cut.channels) return;
    float scale[size];
    float shift[size];
#pragma unroll
    for (int i = 0; i < size; ++i) {
        scale[i] = map.scale[place.image * map.scale_stride + place.channel + i];
        shift[i] = shifted ? map.shift[place.image * cut.channels + place.channel + i] : 0.0F;
    }
    const std::int64_t start = place.image * cut.pixels * cut.channels + place.channel;
    scale_all<T, size, shifted>(map.from + start, map.out + start, place.first, place.end, kColumnRows, cut.channels,
                                scale, shift);
}

template <class T>
constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));

std::int64_t row_blocks(std::int64_t rows, const MapCut& cut) {
    return divide_up(rows * cut.pieces, kRowThreads / kWarp);
}

std::int64_t column_blocks(std::int64_t images, const MapCut& cut, int size) {
    return images * cut.pieces * divide_up(cut.channels, kWarp * size);
}

bool is_aligned(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % kVectorBytes == 0;
}

}  // namespace

MapCut cut_of(const WeightedBlockSizes& sizes) {
    const std::int64_t pixels = sizes.height * sizes.width;
    const std::int64_t unit = sizes.channels_last ? kPixelPiece : kRowPiece;
    const std::int64_t piece = unit * divide_up(pixels, unit * kPieces);
    return {sizes.channels, pixels, piece, divide_up(pixels, piece)};
}

std::int64_t largest_grid(const WeightedBlockSizes& sizes) {
    const MapCut cut = cut_of(sizes);
    return sizes.channels_last ? column_blocks(sizes.images, cut, 1) : row_blocks(sizes.images * sizes.channels, cut);
}

template <class T, bool backward>
DeviceMapPasses<T, backward>::DeviceMapPasses(const WeightedBlockSizes& sizes, const DeviceMap<T>& map,
                                              cudaStream_t stream)
    : sizes_(sizes), cut_(cut_of(sizes)), map_(map), stream_(stream) {
    const std::int64_t row = sizes.channels_last ? sizes.channels : cut_.pixels;
    vectors_ = row % kVector<T> == 0 && is_aligned(map.from) && is_aligned(map.other) && is_aligned(map.out);
}

template <class T, bool backward>
void DeviceMapPasses<T, backward>::sum(float* partial) const {
    vectors_ ? sum_by<kVector<T>>(partial) : sum_by<1>(partial);
}

template <class T, bool backward>
void DeviceMapPasses<T, backward>::scale() const {
    vectors_ ? scale_by<kVector<T>>() : scale_by<1>();
}

template <class T, bool backward>
template <int size>
void DeviceMapPasses<T, backward>::sum_by(float* partial) const {
    if (sizes_.channels_last) {
        launch("weighted_block: sum_columns", sum_columns<T, size, backward>, column_blocks(sizes_.images, cut_, size),
               dim3(kWarp, kColumnRows), 0, stream_, map_, cut_, partial);
    } else {
        const std::int64_t rows = sizes_.images * sizes_.channels;
        launch("weighted_block: sum_rows", sum_rows<T, size, backward>, row_blocks(rows, cut_), kRowThreads, 0, stream_,
               map_, cut_, rows, partial);
    }
}

template <class T, bool backward>
template <int size>
void DeviceMapPasses<T, backward>::scale_by() const {
    DeviceMap<T> map = map_;
    if (backward) map.from = map_.other;
    if (sizes_.channels_last) {
        launch("weighted_block: scale_columns", scale_columns<T, size, backward>,
               column_blocks(sizes_.images, cut_, size), dim3(kWarp, kColumnRows), 0, stream_, map, cut_);
    } else {
        const std::int64_t rows = sizes_.images * sizes_.channels;
        launch("weighted_block: scale_rows", scale_rows<T, size, backward>, row_blocks(rows, cut_), kRowThreads, 0,
               stream_, map, cut_, rows);
    }
}

template class DeviceMapPasses<float, false>;
template class DeviceMapPasses<float, true>;
template class DeviceMapPasses<__half, false>;
template class DeviceMapPasses<__half, true>;
template class DeviceMapPasses<__nv_bfloat16, false>;
template class DeviceMapPasses<__nv_bfloat16, true>;

}  // namespace etnet
