#include "weighted_block_map.hpp"

#include <algorithm>

#include "fixed_order_sum.hpp"
#include "half_precision.hpp"

namespace etnet {
namespace {

using std::int64_t;

constexpr int64_t kPiecePixels = 256;  // pixels of a channels-last map that are summed in float32
constexpr int64_t kPieceRows = 4;      // channels of a contiguous map that one thread takes at a time

int64_t divide_up(int64_t count, int64_t size) {
    return (count + size - 1) / size;
}

// Adds term(pixel, channel) over pixels 0..count - 1 to sums[channel], four pixels at a time.
template <class Term>
ETNET_INTO_CLONE inline void add_pixels(int64_t count, int64_t channels, float* sums, const Term& term) {
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

// sums [channels] of x, or of x g where g is given, over `pixels` pixels of a channels-last map.
template <class T>
ETNET_VECTOR_CLONES void sum_columns(const T* x, const T* g, int64_t pixels, int64_t channels, float* sums) {
    if (g == nullptr) {
        add_pixels(pixels, channels, sums, [=](int64_t p, int64_t c) { return widen(x[p * channels + c]); });
    } else {
        add_pixels(pixels, channels, sums,
                   [=](int64_t p, int64_t c) { return widen(x[p * channels + c]) * widen(g[p * channels + c]); });
    }
}

// The sum of a channel of a contiguous map.
template <class T>
ETNET_VECTOR_CLONES float sum_row(const T* x, const T* g, int64_t pixels) {
    const double total = g == nullptr ? fixed_order_sum(pixels, [=](int64_t p) { return widen(x[p]); })
                                      : fixed_order_sum(pixels, [=](int64_t p) { return widen(x[p]) * widen(g[p]); });
    return static_cast<float>(total);
}

// out = from scale, or from scale + shift where a shift is given, for the channels of a pixel.
template <class T>
ETNET_INTO_CLONE inline void scale_pixel(const T* __restrict__ from, T* __restrict__ out, int64_t channels,
                                         const float* __restrict__ scale, const float* __restrict__ shift) {
    if (shift == nullptr) {
        for (int64_t c = 0; c < channels; ++c) narrow(widen(from[c]) * scale[c], out[c]);
    } else {
        for (int64_t c = 0; c < channels; ++c) narrow(widen(from[c]) * scale[c] + shift[c], out[c]);
    }
}

template <class T>
ETNET_VECTOR_CLONES void scale_columns(const T* from, T* out, int64_t pixels, int64_t channels, const float* scale,
                                       const float* shift) {
    for (int64_t p = 0; p < pixels; ++p) {
        scale_pixel(from + p * channels, out + p * channels, channels, scale, shift);
    }
}

template <class T>
ETNET_VECTOR_CLONES void scale_row(const T* from, T* out, int64_t pixels, float scale, const float* shift) {
    if (shift == nullptr) {
        for (int64_t p = 0; p < pixels; ++p) narrow(widen(from[p]) * scale, out[p]);
    } else {
        const float term = *shift;
        for (int64_t p = 0; p < pixels; ++p) narrow(widen(from[p]) * scale + term, out[p]);
    }
}

}  // namespace

template <class T>
MapPasses<T>::MapPasses(const WeightedBlockSizes& sizes, bool backward)
    : channels_(sizes.channels),
      pixels_(sizes.height * sizes.width),
      channels_last_(sizes.channels_last),
      backward_(backward) {}

template <class T>
int64_t MapPasses<T>::pieces() const {
    return channels_last_ ? divide_up(pixels_, kPiecePixels) : divide_up(channels_, kPieceRows);
}

template <class T>
void MapPasses<T>::sum(const ImageMap<T>& image, int64_t piece, float* partial, float* sums) const {
    if (channels_last_) {
        const int64_t first = piece * kPiecePixels;
        const int64_t count = std::min(kPiecePixels, pixels_ - first);
        const T* g = backward_ ? image.gradient_out + first * channels_ : nullptr;
        sum_columns(image.x + first * channels_, g, count, channels_, partial + piece * channels_);
        return;
    }
    for (int64_t c = piece * kPieceRows; c < std::min(channels_, (piece + 1) * kPieceRows); ++c) {
        const T* g = backward_ ? image.gradient_out + c * pixels_ : nullptr;
        sums[c] = sum_row(image.x + c * pixels_, g, pixels_);
    }
}

template <class T>
void MapPasses<T>::join(const float* partial, float* sums) const {
    if (!channels_last_) return;
    for (int64_t c = 0; c < channels_; ++c) {
        double total = 0.0;
        for (int64_t piece = 0; piece < pieces(); ++piece) {
            total += static_cast<double>(partial[piece * channels_ + c]);
        }
        sums[c] = static_cast<float>(total);
    }
}

template <class T>
void MapPasses<T>::scale(const ImageMap<T>& image, int64_t piece, const float* scale, const float* shift) const {
    const T* from = backward_ ? image.gradient_out : image.x;
    if (channels_last_) {
        const int64_t first = piece * kPiecePixels;
        const int64_t count = std::min(kPiecePixels, pixels_ - first);
        scale_columns(from + first * channels_, image.out + first * channels_, count, channels_, scale,
                      backward_ ? shift : nullptr);
        return;
    }
    for (int64_t c = piece * kPieceRows; c < std::min(channels_, (piece + 1) * kPieceRows); ++c) {
        scale_row(from + c * pixels_, image.out + c * pixels_, pixels_, scale[c], backward_ ? shift + c : nullptr);
    }
}

int64_t partial_sums(const WeightedBlockSizes& sizes) {
    return sizes.channels_last ? divide_up(sizes.height * sizes.width, kPiecePixels) * sizes.channels : 0;
}

template class MapPasses<float>;
template class MapPasses<HalfFloat>;
template class MapPasses<BrainFloat>;

}  // namespace etnet
