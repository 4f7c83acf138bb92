// CUDA version of etnet/ops/weighted_block.hpp: a pass of sums, the two small products, and a pass that scales.
//
// A row is a channel of an image (contiguous maps). A piece is a part of a row, or of the pixels of a channels-last
// image; an image has at most kPieces of them, whose sums are added in their order. Both passes cut the map the same
// way; the second takes the pieces from the last to the first, because the first pass leaves the last ones in L2.
#include <cstring>
#include <type_traits>

#include "etnet/ops/weighted_block_cuda.hpp"
#include "etnet/weighted_block_check.hpp"
#include "half_precision.cuh"
#include "launch.cuh"

namespace etnet {
namespace {

constexpr int kWarp = 32;
constexpr int kRowThreads = 128;    // four warps, each with a piece of its own
constexpr int kColumnRows = 8;      // pixels that a block of the channels-last passes reads side by side
constexpr int kSmallThreads = 512;  // of the block that does an image's small products
constexpr int kOuterThreads = 256;  // of the blocks that make the parameters' gradients
constexpr std::int64_t kPieces = 64;
constexpr std::int64_t kRowPiece = 2048;  // numbers; a multiple of what a warp reads at once in any format
constexpr std::int64_t kPixelPiece = 64;  // pixels; a multiple of kColumnRows
constexpr int kVectorBytes = 16;
constexpr int kBatch = 4;      // vectors that a thread asks for before it waits for the first
constexpr int kRowBlocks = 8;  // at a time: without saying so, the compiler aims at more and runs out of registers
constexpr int kColumnBlocks = 3;

// How an image is cut.
struct Cut {
    std::int64_t channels;
    std::int64_t pixels;
    std::int64_t piece;   // numbers of a row, or pixels
    std::int64_t pieces;  // of a row, or of an image
};

Cut cut_of(const WeightedBlockSizes& sizes) {
    const std::int64_t pixels = sizes.height * sizes.width;
    const std::int64_t unit = sizes.channels_last ? kPixelPiece : kRowPiece;
    const std::int64_t piece = unit * divide_up(pixels, unit * kPieces);
    return {sizes.channels, pixels, piece, divide_up(pixels, piece)};
}

// What the passes over the map read and write. `other` is g for the sums of g x.
template <class T>
struct Map {
    const T* from;
    const T* other;
    T* out;
    const float* scale;         // of image 0
    std::int64_t scale_stride;  // from image to image
    const float* shift;         // [N, C], or nullptr
};

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

__device__ float warp_sum(float value) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFU, value, step);
    return value;
}

// The piece of a warp: 0..rows * pieces - 1, or more for the last warps of the grid.
__device__ std::int64_t warp_index() {
    return static_cast<std::int64_t>(blockIdx.x) * (kRowThreads / kWarp) + threadIdx.x / kWarp;
}

// partial [N, C, pieces]: sums of from, or of from * other, over a piece of a row. `size` divides P.
template <class T, int size, bool product>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    sum_rows(Map<T> map, Cut cut, std::int64_t rows, float* partial) {
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
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) scale_rows(Map<T> map, Cut cut, std::int64_t rows) {
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
__device__ ColumnPlace column_place(const Cut& cut, std::int64_t block, int size) {
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
__global__ void __launch_bounds__(kWarp* kColumnRows, kColumnBlocks) sum_columns(Map<T> map, Cut cut, float* partial) {
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
__global__ void __launch_bounds__(kWarp* kColumnRows, kColumnBlocks) scale_columns(Map<T> map, Cut cut) {
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

// Where the sums of the pieces lie, for a channel of an image.
struct Partial {
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
struct SmallRows {
    float* mean;
    float* hidden;
    float* scale;
    float* outer;  // a
    float* inner;  // e
    float* shift;
};

struct SmallArrays {
    float* state;  // [N, C + R + C]
    float* outer;  // [N, C]
    float* inner;  // [N, R]
    float* shift;  // [N, C]
    std::int64_t channels;
    std::int64_t hidden;

    __device__ SmallRows of(std::int64_t image) const {
        float* own = state + image * (2 * channels + hidden);
        return {own,
                own + channels,
                own + channels + hidden,
                outer + image * channels,
                inner + image * hidden,
                shift + image * channels};
    }
};

// A block does one image; what its threads leave in memory, all of them read after the barrier.
template <class Parameter>
__global__ void __launch_bounds__(kSmallThreads)
    weigh(SmallArrays arrays, Partial partial, float pixels, const Parameter* w1, const Parameter* b1,
          const Parameter* w2, const Parameter* b2) {
    const SmallRows rows = arrays.of(blockIdx.x);
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
    chain(SmallArrays arrays, Partial partial, float pixels, const Parameter* w1, const Parameter* w2) {
    const SmallRows rows = arrays.of(blockIdx.x);
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
    add_images(SmallArrays arrays, std::int64_t images, ParameterGradients gradients) {
    const std::int64_t channels = arrays.channels;
    const std::int64_t hidden = arrays.hidden;
    const std::int64_t matrix = channels * hidden;
    std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kOuterThreads + threadIdx.x;
    if (i >= 2 * matrix + hidden + channels) return;
    float sum = 0.0F;
    if (i < matrix) {
        const std::int64_t r = i / channels;
        for (std::int64_t n = 0; n < images; ++n) {
            const SmallRows rows = arrays.of(n);
            sum += rows.inner[r] * rows.mean[i - r * channels];
        }
        gradients.w1[i] = sum;
    } else if (i < 2 * matrix) {
        i -= matrix;
        const std::int64_t c = i / hidden;
        for (std::int64_t n = 0; n < images; ++n) {
            const SmallRows rows = arrays.of(n);
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

// The passes over the map, in vectors where they fit.
template <class T, bool backward>
class MapPasses {
  public:
    MapPasses(const WeightedBlockSizes& sizes, const Map<T>& map, const void* second, cudaStream_t stream)
        : sizes_(sizes), cut_(cut_of(sizes)), map_(map), stream_(stream) {
        const std::int64_t row = sizes.channels_last ? sizes.channels : cut_.pixels;
        vectors_ = row % kSize == 0;
        for (const void* address : {static_cast<const void*>(map.from), second, static_cast<const void*>(map.out)}) {
            vectors_ = vectors_ && reinterpret_cast<std::uintptr_t>(address) % kVectorBytes == 0;
        }
    }

    void sum(float* partial) const { vectors_ ? sum_by<kSize>(partial) : sum_by<1>(partial); }
    void scale(const T* from) {
        map_.from = from;
        vectors_ ? scale_by<kSize>() : scale_by<1>();
    }

  private:
    static constexpr int kSize = kVectorBytes / static_cast<int>(sizeof(T));

    std::int64_t rows() const { return sizes_.images * sizes_.channels; }
    std::int64_t row_blocks() const { return divide_up(rows() * cut_.pieces, kRowThreads / kWarp); }
    std::int64_t column_blocks(int size) const {
        return sizes_.images * cut_.pieces * divide_up(sizes_.channels, kWarp * size);
    }

    template <int size>
    void sum_by(float* partial) const {
        if (sizes_.channels_last) {
            launch("weighted_block: sum_columns", sum_columns<T, size, backward>, column_blocks(size),
                   dim3(kWarp, kColumnRows), 0, stream_, map_, cut_, partial);
        } else {
            launch("weighted_block: sum_rows", sum_rows<T, size, backward>, row_blocks(), kRowThreads, 0, stream_, map_,
                   cut_, rows(), partial);
        }
    }

    template <int size>
    void scale_by() const {
        if (sizes_.channels_last) {
            launch("weighted_block: scale_columns", scale_columns<T, size, backward>, column_blocks(size),
                   dim3(kWarp, kColumnRows), 0, stream_, map_, cut_);
        } else {
            launch("weighted_block: scale_rows", scale_rows<T, size, backward>, row_blocks(), kRowThreads, 0, stream_,
                   map_, cut_, rows());
        }
    }

    const WeightedBlockSizes& sizes_;
    Cut cut_;
    Map<T> map_;
    cudaStream_t stream_;
    bool vectors_ = false;
};

class DeviceBlock {
  public:
    DeviceBlock(const WeightedBlockArguments& arguments, cudaStream_t stream)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          memory_(lay_out(arguments.workspace, sizes_)),
          arrays_{arguments.state, memory_.outer, memory_.inner, memory_.shift, sizes_.channels, sizes_.hidden},
          partial_{memory_.partial, sizes_.channels, cut_of(sizes_).pieces, sizes_.channels_last},
          pixels_(static_cast<float>(sizes_.height * sizes_.width)),
          stream_(stream) {}

    template <class T, class Parameter>
    void forward() const {
        const T* x = static_cast<const T*>(arguments_.x);
        const Map<T> map{x, nullptr, static_cast<T*>(arguments_.out), scale(), state_stride(), nullptr};
        MapPasses<T, false> passes(sizes_, map, nullptr, stream_);
        passes.sum(memory_.partial);
        launch("weighted_block: weigh", weigh<Parameter>, sizes_.images, kSmallThreads, 0, stream_, arrays_, partial_,
               pixels_, as<Parameter>(arguments_.w1), as<Parameter>(arguments_.b1), as<Parameter>(arguments_.w2),
               as<Parameter>(arguments_.b2));
        passes.scale(x);
    }

    template <class T, class Parameter>
    void backward() const {
        const T* gradient = static_cast<const T*>(arguments_.gradient_out);
        const Map<T> map{static_cast<const T*>(arguments_.x),
                         gradient,
                         static_cast<T*>(arguments_.gradient_x),
                         scale(),
                         state_stride(),
                         memory_.shift};
        MapPasses<T, true> passes(sizes_, map, gradient, stream_);
        passes.sum(memory_.partial);
        launch("weighted_block: chain", chain<Parameter>, sizes_.images, kSmallThreads, 0, stream_, arrays_, partial_,
               pixels_, as<Parameter>(arguments_.w1), as<Parameter>(arguments_.w2));
        passes.scale(gradient);
        const ParameterGradients gradients{arguments_.gradient_w1, arguments_.gradient_b1, arguments_.gradient_w2,
                                           arguments_.gradient_b2};
        const std::int64_t numbers = 2 * sizes_.channels * sizes_.hidden + sizes_.channels + sizes_.hidden;
        launch("weighted_block: add_images", add_images, divide_up(numbers, kOuterThreads), kOuterThreads, 0, stream_,
               arrays_, sizes_.images, gradients);
    }

  private:
    const float* scale() const { return arguments_.state + sizes_.channels + sizes_.hidden; }
    std::int64_t state_stride() const { return 2 * sizes_.channels + sizes_.hidden; }

    template <class Parameter>
    static const Parameter* as(const void* numbers) {
        return static_cast<const Parameter*>(numbers);
    }

    const WeightedBlockArguments& arguments_;
    const WeightedBlockSizes& sizes_;
    Memory memory_;
    SmallArrays arrays_;
    Partial partial_;
    float pixels_;
    cudaStream_t stream_;
};

template <class Body>
void with_type(FloatType type, const Body& body) {
    if (type == FloatType::float32) {
        body(float{});
    } else if (type == FloatType::float16) {
        body(__half{});
    } else {
        body(__nv_bfloat16{});
    }
}

// Calls body with a number of the type of the map and one of the type of the parameters.
template <class Body>
void with_types(const WeightedBlockSizes& sizes, const Body& body) {
    with_type(sizes.type,
              [&](auto number) { with_type(sizes.parameter_type, [&](auto parameter) { body(number, parameter); }); });
}

}  // namespace

std::int64_t weighted_block_cuda_workspace_bytes(const WeightedBlockSizes& sizes) {
    check_sizes(sizes);
    return lay_out(nullptr, sizes).bytes;
}

void weighted_block_cuda(const WeightedBlockArguments& arguments, void* stream) {
    check_forward(arguments, weighted_block_cuda_workspace_bytes(arguments.sizes));
    const DeviceBlock block(arguments, static_cast<cudaStream_t>(stream));
    with_types(arguments.sizes,
               [&](auto number, auto parameter) { block.forward<decltype(number), decltype(parameter)>(); });
}

void weighted_block_backward_cuda(const WeightedBlockArguments& arguments, void* stream) {
    check_backward(arguments, weighted_block_cuda_workspace_bytes(arguments.sizes));
    const DeviceBlock block(arguments, static_cast<cudaStream_t>(stream));
    with_types(arguments.sizes,
               [&](auto number, auto parameter) { block.backward<decltype(number), decltype(parameter)>(); });
}

}  // namespace etnet
