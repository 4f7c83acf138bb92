#include "weighted_block_small.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "fixed_order_sum.hpp"

namespace etnet {
namespace {

using std::int64_t;

void add_outer(const float* left, int64_t rows, const float* right, int64_t columns, float* product) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) product[i * columns + j] += left[i] * right[j];
    }
}

}  // namespace

void weigh(const WeightedBlockSizes& sizes, const Parameters& parameters, const SmallArrays& rows) {
    const int64_t channels = sizes.channels;
    const int64_t hidden = sizes.hidden;
    const float pixels = static_cast<float>(sizes.height * sizes.width);
    for (int64_t c = 0; c < channels; ++c) rows.mean[c] /= pixels;
    for (int64_t r = 0; r < hidden; ++r) {
        const float* w1 = parameters.w1 + r * channels;
        const double product = fixed_order_sum(channels, [&](int64_t c) { return w1[c] * rows.mean[c]; });
        const float value = static_cast<float>(product) + parameters.b1[r];
        rows.hidden[r] = value < 0.0F ? 0.0F : value;  // keeps NaN
    }
    for (int64_t c = 0; c < channels; ++c) {
        const float* w2 = parameters.w2 + c * hidden;
        const double product = fixed_order_sum(hidden, [&](int64_t r) { return w2[r] * rows.hidden[r]; });
        rows.scale[c] = 1.0F / (1.0F + std::exp(-(static_cast<float>(product) + parameters.b2[c])));
    }
}

void chain(const WeightedBlockSizes& sizes, const Parameters& parameters, const SmallArrays& rows) {
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

void add_image(const WeightedBlockSizes& sizes, const SmallArrays& rows, const WeightedBlockArguments& gradients) {
    const int64_t channels = sizes.channels;
    const int64_t hidden = sizes.hidden;
    add_outer(rows.slope, hidden, rows.mean, channels, gradients.gradient_w1);
    add_outer(rows.sum, channels, rows.hidden, hidden, gradients.gradient_w2);
    for (int64_t r = 0; r < hidden; ++r) gradients.gradient_b1[r] += rows.slope[r];
    for (int64_t c = 0; c < channels; ++c) gradients.gradient_b2[c] += rows.sum[c];
}

}  // namespace etnet
