// CPU version of etnet/ops/weighted_block.hpp: a pass of sums, the two small products, and a pass that scales.
#include "etnet/ops/weighted_block.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "etnet/parallel.hpp"
#include "etnet/weighted_block_check.hpp"
#include "half_precision.hpp"
#include "huge_pages.hpp"

// Compiled for each of these instruction sets; the loader takes the best that the processor has. Results are the same:
// the order of all sums is fixed, and no product is contracted with a sum.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define ETNET_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#define ETNET_INTO_CLONE __attribute__((always_inline))
#else
#define ETNET_VECTOR_CLONES
#define ETNET_INTO_CLONE
#endif

namespace etnet {
namespace {

using std::int64_t;

constexpr int64_t kNumbersPerThread = 1 << 19;    // below this a second thread costs more than it brings
constexpr int64_t kRun = 2048;                    // numbers of a channel that are summed in float32
constexpr int64_t kPiecePixels = 256;             // pixels of a channels-last map that are summed in float32
constexpr int64_t kPieceRows = 4;                 // channels of a contiguous map that one thread takes at a time
constexpr int64_t kHugeBytes = int64_t{1} << 25;  // from here on allocators hand out fresh memory every time

// The numbers of one image in memory order, [C, P] or [P, C].
template <class T>
struct Image {
    const T* x;
    const T* gradient_out;  // backward
    T* out;                 // out, or the gradient of x
};

// Small arrays of one image.
struct Rows {
    float* mean;    // [C]
    float* hidden;  // [R]
    float* scale;   // [C]
    float* sum;     // [C] backward: sum over pixels of g x, then a
    float* slope;   // [R] backward: e
    float* shift;   // [C] backward: what every pixel's gradient of x gets
};

// Sum of term(0)..term(count - 1). The 32 partial sums have the same order for vectors of any width.
template <class Term>
ETNET_INTO_CLONE inline double sum_run(int64_t count, const Term& term) {
    constexpr int64_t kLanes = 32;
    double total = 0.0;
    for (int64_t first = 0; first < count; first += kRun) {
        const int64_t size = std::min(kRun, count - first);
        float lanes[kLanes] = {};
        int64_t i = 0;
        for (; i + kLanes <= size; i += kLanes) {
            for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(first + i + lane);
        }
        for (int64_t lane = 0; i + lane < size; ++lane) lanes[lane] += term(first + i + lane);
        for (int64_t half = kLanes / 2; half > 0; half /= 2) {
            for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
        }
        total += static_cast<double>(lanes[0]);
    }
    return total;
}

// Adds term(pixel, channel) over pixels 0..count - 1 to sums[channel], four pixels at a time.
template <class Term>
ETNET_INTO_CLONE inline void sum_pixels(int64_t count, int64_t channels, float* sums, const Term& term) {
    std::fill_n(sums, channels, 0.0F);
    int64_t p = 0;
    for (; p + 4 <= count; p += 4) {
        for (int64_t c = 0; c < channels; ++c) {
            sums[c] += (term(p, c) + term(p + 1, c)) + (term(p + 2, c) + term(p + 3, c));
        }
    }
    for (; p < count; ++p) {
        for (int64_t c = 0; c < channels; ++c) sums[c] += term(p, c);
    }
}

template <class T>
class MapPasses {
  public:
    MapPasses(const WeightedBlockSizes& sizes, bool backward)
        : channels_(sizes.channels),
          pixels_(sizes.height * sizes.width),
          channels_last_(sizes.channels_last),
          backward_(backward) {}

    // Items of a pass that are done independently: pieces of pixels, or of channels.
    int64_t pieces() const {
        return channels_last_ ? (pixels_ + kPiecePixels - 1) / kPiecePixels : (channels_ + kPieceRows - 1) / kPieceRows;
    }

    // Sums over the pixels, of x or of g x: `partial` [pieces, C] for channels-last maps, otherwise `sums` [C] itself.
    ETNET_VECTOR_CLONES void sum(const Image<T>& image, int64_t piece, float* partial, float* sums) const {
        const T* x = image.x;
        const T* g = image.gradient_out;
        if (channels_last_) {
            const int64_t first = piece * kPiecePixels;
            const int64_t count = std::min(kPiecePixels, pixels_ - first);
            const int64_t channels = channels_;
            x += first * channels;
            float* row = partial + piece * channels;
            if (!backward_) {
                sum_pixels(count, channels, row, [=](int64_t p, int64_t c) { return widen(x[p * channels + c]); });
                return;
            }
            g += first * channels;
            sum_pixels(count, channels, row,
                       [=](int64_t p, int64_t c) { return widen(x[p * channels + c]) * widen(g[p * channels + c]); });
            return;
        }
        for (int64_t c = piece * kPieceRows; c < std::min(channels_, (piece + 1) * kPieceRows); ++c) {
            const T* row = x + c * pixels_;
            const T* other = backward_ ? g + c * pixels_ : nullptr;
            const double total = backward_
                                     ? sum_run(pixels_, [=](int64_t p) { return widen(row[p]) * widen(other[p]); })
                                     : sum_run(pixels_, [=](int64_t p) { return widen(row[p]); });
            sums[c] = static_cast<float>(total);
        }
    }

    // Adds the pieces of a channels-last map up, in their order.
    void join(const float* partial, float* sums) const {
        if (!channels_last_) return;
        for (int64_t c = 0; c < channels_; ++c) {
            double total = 0.0;
            for (int64_t piece = 0; piece < pieces(); ++piece) {
                total += static_cast<double>(partial[piece * channels_ + c]);
            }
            sums[c] = static_cast<float>(total);
        }
    }

    // out = x scale, or the gradient of x = g scale + shift.
    ETNET_VECTOR_CLONES void scale(const Image<T>& image, int64_t piece, const float* scale, const float* shift) const {
        const T* from = backward_ ? image.gradient_out : image.x;
        T* out = image.out;
        if (channels_last_) {
            const int64_t first = piece * kPiecePixels;
            for (int64_t p = first; p < std::min(pixels_, first + kPiecePixels); ++p) {
                scale_pixel(from + p * channels_, out + p * channels_, scale, shift);
            }
            return;
        }
        for (int64_t c = piece * kPieceRows; c < std::min(channels_, (piece + 1) * kPieceRows); ++c) {
            const T* row = from + c * pixels_;
            T* target = out + c * pixels_;
            const float factor = scale[c];
            if (backward_) {
                const float term = shift[c];
                for (int64_t p = 0; p < pixels_; ++p) narrow(widen(row[p]) * factor + term, target[p]);
            } else {
                for (int64_t p = 0; p < pixels_; ++p) narrow(widen(row[p]) * factor, target[p]);
            }
        }
    }

  private:
    ETNET_INTO_CLONE void scale_pixel(const T* __restrict__ from, T* __restrict__ out, const float* __restrict__ scale,
                                      const float* __restrict__ shift) const {
        if (backward_) {
            for (int64_t c = 0; c < channels_; ++c) narrow(widen(from[c]) * scale[c] + shift[c], out[c]);
        } else {
            for (int64_t c = 0; c < channels_; ++c) narrow(widen(from[c]) * scale[c], out[c]);
        }
    }

    int64_t channels_;
    int64_t pixels_;
    bool channels_last_;
    bool backward_;
};

// The parameters in float32: those given, or copies.
struct Parameters {
    const float* w1;
    const float* b1;
    const float* w2;
    const float* b2;
};

void weigh(const WeightedBlockSizes& sizes, const Parameters& parameters, const Rows& rows) {
    const int64_t channels = sizes.channels;
    const int64_t hidden = sizes.hidden;
    const float pixels = static_cast<float>(sizes.height * sizes.width);
    for (int64_t c = 0; c < channels; ++c) rows.mean[c] /= pixels;
    for (int64_t r = 0; r < hidden; ++r) {
        const float* w1 = parameters.w1 + r * channels;
        const double product = sum_run(channels, [&](int64_t c) { return w1[c] * rows.mean[c]; });
        const float value = static_cast<float>(product) + parameters.b1[r];
        rows.hidden[r] = value < 0.0F ? 0.0F : value;  // keeps NaN
    }
    for (int64_t c = 0; c < channels; ++c) {
        const float* w2 = parameters.w2 + c * hidden;
        const double product = sum_run(hidden, [&](int64_t r) { return w2[r] * rows.hidden[r]; });
        rows.scale[c] = 1.0F / (1.0F + std::exp(-(static_cast<float>(product) + parameters.b2[c])));
    }
}

void chain(const WeightedBlockSizes& sizes, const Parameters& parameters, const Rows& rows) {
    const int64_t channels = sizes.channels;
    const int64_t hidden = sizes.hidden;
    const float pixels = static_cast<float>(sizes.height * sizes.width);
    std::fill_n(rows.slope, hidden, 0.0F);
    for (int64_t c = 0; c < channels; ++c) {
        rows.sum[c] *= rows.scale[c] * (1.0F - rows.scale[c]);
        const float* w2 = parameters.w2 + c * hidden;
        for (int64_t r = 0; r < hidden; ++r) rows.slope[r] += w2[r] * rows.sum[c];
    }
    std::fill_n(rows.shift, channels, 0.0F);
    for (int64_t r = 0; r < hidden; ++r) {
        if (rows.hidden[r] <= 0.0F) rows.slope[r] = 0.0F;
        const float* w1 = parameters.w1 + r * channels;
        for (int64_t c = 0; c < channels; ++c) rows.shift[c] += w1[c] * rows.slope[r];
    }
    for (int64_t c = 0; c < channels; ++c) rows.shift[c] /= pixels;
}

struct Layout {
    explicit Layout(const WeightedBlockSizes& sizes) {
        const int64_t pixels = sizes.height * sizes.width;
        const int64_t pieces = sizes.channels_last ? (pixels + kPiecePixels - 1) / kPiecePixels : 0;
        const int64_t copied = sizes.parameter_type == FloatType::float32
                                   ? 0
                                   : 2 * sizes.channels * sizes.hidden + sizes.channels + sizes.hidden;
        partial = pieces * sizes.channels;
        image = 2 * sizes.channels + sizes.hidden;
        parameters = sizes.images * (partial + image);
        bytes = (parameters + copied) * static_cast<int64_t>(sizeof(float));
    }
    int64_t partial;     // numbers of an image's pieces
    int64_t image;       // numbers of an image's sum, slope and shift, behind all pieces
    int64_t parameters;  // where the copies of the parameters begin
    int64_t bytes;
};

// Calls body(first, last, threads) so that images are done side by side, each by one thread, whose second pass finds
// the image in the cache; what does not divide evenly is done by all threads together.
template <class Body>
void for_each_image(int64_t images, int threads, const Body& body) {
    const int64_t alone = images - images % threads;
    parallel_for(alone, 1, threads, [&](int64_t image, int64_t, int) { body(image, 1); });
    for (int64_t image = alone; image < images; ++image) body(image, threads);
}

template <class T>
class Block {
  public:
    Block(const WeightedBlockArguments& arguments, bool backward)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          layout_(sizes_),
          passes_(sizes_, backward),
          workspace_(static_cast<float*>(arguments.workspace)),
          parameters_(read_parameters(backward)) {
        const int64_t useful = 1 + sizes_.images * numbers() / kNumbersPerThread;
        threads_ = static_cast<int>(std::min<int64_t>(sizes_.threads, useful));
    }

    void forward() const {
        prefer_huge(arguments_.out);
        for_each_image(sizes_.images, threads_, [&](int64_t n, int threads) {
            const Rows rows = rows_of(n);
            const Image<T> image{at<const T>(arguments_.x, n), nullptr, at<T>(arguments_.out, n)};
            sum(image, n, threads, rows.mean);
            weigh(sizes_, parameters_, rows);
            scale(image, threads, rows);
        });
    }

    void backward() const {
        prefer_huge(arguments_.gradient_x);
        for_each_image(sizes_.images, threads_, [&](int64_t n, int threads) {
            const Rows rows = rows_of(n);
            const Image<T> image{at<const T>(arguments_.x, n), at<const T>(arguments_.gradient_out, n),
                                 at<T>(arguments_.gradient_x, n)};
            sum(image, n, threads, rows.sum);
            chain(sizes_, parameters_, rows);
            scale(image, threads, rows);
        });
        add_parameter_gradients();
    }

  private:
    int64_t numbers() const { return sizes_.channels * sizes_.height * sizes_.width; }

    template <class Number, class Pointer>
    Number* at(Pointer* buffer, int64_t image) const {
        return static_cast<Number*>(buffer) + image * numbers();
    }

    void prefer_huge(void* buffer) const {
        const int64_t bytes = sizes_.images * numbers() * static_cast<int64_t>(sizeof(T));
        if (bytes >= kHugeBytes) prefer_huge_pages(buffer, bytes);
    }

    Rows rows_of(int64_t image) const {
        float* state = arguments_.state + image * (2 * sizes_.channels + sizes_.hidden);
        float* own = workspace_ + sizes_.images * layout_.partial + image * layout_.image;
        return {state, state + sizes_.channels, state + sizes_.channels + sizes_.hidden,
                own,   own + sizes_.channels,   own + sizes_.channels + sizes_.hidden};
    }

    void sum(const Image<T>& image, int64_t index, int threads, float* sums) const {
        float* partial = workspace_ + index * layout_.partial;
        parallel_for(passes_.pieces(), 1, threads,
                     [&](int64_t piece, int64_t, int) { passes_.sum(image, piece, partial, sums); });
        passes_.join(partial, sums);
    }

    void scale(const Image<T>& image, int threads, const Rows& rows) const {
        parallel_for(passes_.pieces(), 1, threads,
                     [&](int64_t piece, int64_t, int) { passes_.scale(image, piece, rows.scale, rows.shift); });
    }

    void add_parameter_gradients() const {
        const int64_t channels = sizes_.channels;
        const int64_t hidden = sizes_.hidden;
        std::fill_n(arguments_.gradient_w1, hidden * channels, 0.0F);
        std::fill_n(arguments_.gradient_b1, hidden, 0.0F);
        std::fill_n(arguments_.gradient_w2, channels * hidden, 0.0F);
        std::fill_n(arguments_.gradient_b2, channels, 0.0F);
        for (int64_t n = 0; n < sizes_.images; ++n) {
            const Rows rows = rows_of(n);
            add_outer(rows.slope, hidden, rows.mean, channels, arguments_.gradient_w1);
            add_outer(rows.sum, channels, rows.hidden, hidden, arguments_.gradient_w2);
            for (int64_t r = 0; r < hidden; ++r) arguments_.gradient_b1[r] += rows.slope[r];
            for (int64_t c = 0; c < channels; ++c) arguments_.gradient_b2[c] += rows.sum[c];
        }
    }

    static void add_outer(const float* left, int64_t rows, const float* right, int64_t columns, float* product) {
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < columns; ++j) product[i * columns + j] += left[i] * right[j];
        }
    }

    Parameters read_parameters(bool backward) const {
        const int64_t matrix = sizes_.channels * sizes_.hidden;
        float* room = workspace_ + layout_.parameters;
        Parameters parameters{};
        parameters.w1 = read(arguments_.w1, matrix, room);
        parameters.w2 = read(arguments_.w2, matrix, room + matrix);
        if (backward) return parameters;
        parameters.b1 = read(arguments_.b1, sizes_.hidden, room + 2 * matrix);
        parameters.b2 = read(arguments_.b2, sizes_.channels, room + 2 * matrix + sizes_.hidden);
        return parameters;
    }

    const float* read(const void* numbers, int64_t count, float* room) const {
        if (sizes_.parameter_type == FloatType::float32) return static_cast<const float*>(numbers);
        if (sizes_.parameter_type == FloatType::float16) return widened<HalfFloat>(numbers, count, room);
        return widened<BrainFloat>(numbers, count, room);
    }

    template <class Number>
    static const float* widened(const void* numbers, int64_t count, float* room) {
        for (int64_t i = 0; i < count; ++i) room[i] = widen(static_cast<const Number*>(numbers)[i]);
        return room;
    }

    const WeightedBlockArguments& arguments_;
    const WeightedBlockSizes& sizes_;
    Layout layout_;
    MapPasses<T> passes_;
    float* workspace_;
    Parameters parameters_;
    int threads_ = 1;
};

template <class Body>
void with_type(FloatType type, const Body& body) {
    if (type == FloatType::float32) {
        body(float{});
    } else if (type == FloatType::float16) {
        body(HalfFloat{});
    } else {
        body(BrainFloat{});
    }
}

}  // namespace

std::int64_t weighted_block_workspace_bytes(const WeightedBlockSizes& sizes) {
    check_sizes(sizes);
    return Layout(sizes).bytes;
}

void weighted_block(const WeightedBlockArguments& arguments) {
    check_forward(arguments, weighted_block_workspace_bytes(arguments.sizes));
    with_type(arguments.sizes.type, [&](auto number) { Block<decltype(number)>(arguments, false).forward(); });
}

void weighted_block_backward(const WeightedBlockArguments& arguments) {
    check_backward(arguments, weighted_block_workspace_bytes(arguments.sizes));
    with_type(arguments.sizes.type, [&](auto number) { Block<decltype(number)>(arguments, true).backward(); });
}

}  // namespace etnet
