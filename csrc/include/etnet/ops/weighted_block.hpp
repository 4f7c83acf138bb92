// Weighted block: the channels of a map weighed by its global context (paper Fig. 2b), and the gradients.
//
// For an image x [C, P] of P = H W pixels, with matrices W1 [R, C], W2 [C, R] and biases b1 [R], b2 [C]:
//     mean(c)   = sum_p x(c, p) / P
//     hidden    = relu(W1 mean + b1)
//     scale     = sigmoid(W2 hidden + b2)
//     out(c, p) = x(c, p) scale(c)
//
// Gradients, from g = d loss / d out, with the sums over n being over the images:
//     a(c)  = scale(c) (1 - scale(c)) sum_p g(c, p) x(c, p)        d loss / d (W2 hidden + b2)
//     e(r)  = sum_c W2(c, r) a(c)  where hidden(r) > 0, else 0     d loss / d (W1 mean + b1)
//     W2: sum_n a hidden^T        b2: sum_n a        W1: sum_n e mean^T        b1: sum_n e
//     x(c, p): g(c, p) scale(c) + sum_r W1(r, c) e(r) / P
//
// The forward pass leaves mean, hidden and scale for the backward pass: `state` [N, C + R + C].
//
// Arithmetic and sums are float32 (sums over many pixels float64 on the CPU), whatever the formats; only out and the
// gradient of x are rounded to the format of x. NaN and infinity spread as the formulas say (the relu of NaN is NaN).
// Sums have a fixed order: the result depends neither on the number of threads nor on the run.
#pragma once

#include <cstdint>

#include "etnet/float_type.hpp"

namespace etnet {

struct WeightedBlockSizes {
    std::int64_t images = 0;              // N
    std::int64_t channels = 0;            // C
    std::int64_t hidden = 0;              // R
    std::int64_t height = 0;              // H
    std::int64_t width = 0;               // W;  all at least 1, N C H W <= 2^33, N R <= 2^33, C R <= 2^31 - 1
    bool channels_last = false;           // x, out and their gradients lie as [N, H, W, C] instead of [N, C, H, W]
    FloatType type = FloatType::float32;  // of x, out and their gradients
    FloatType parameter_type = FloatType::float32;  // of W1, b1, W2, b2; their gradients are float32
    int threads = 1;                                // at least 1
};

// Which pass uses what: f forward, b backward.
struct WeightedBlockArguments {
    WeightedBlockSizes sizes;
    const void* x = nullptr;             // f, b: N C H W numbers, dense
    const void* w1 = nullptr;            // f, b: [R, C]
    const void* b1 = nullptr;            // f: [R]
    const void* w2 = nullptr;            // f, b: [C, R]
    const void* b2 = nullptr;            // f: [C]
    float* state = nullptr;              // written by f, read by b
    void* out = nullptr;                 // f: laid out as x
    const void* gradient_out = nullptr;  // b: laid out as x
    void* gradient_x = nullptr;          // b: laid out as x
    float* gradient_w1 = nullptr;        // b: [R, C]
    float* gradient_b1 = nullptr;        // b: [R]
    float* gradient_w2 = nullptr;        // b: [C, R]
    float* gradient_b2 = nullptr;        // b: [C]
    void* workspace = nullptr;           // weighted_block_workspace_bytes(sizes) bytes, aligned to 64
    std::int64_t workspace_bytes = 0;
};

// Size of the scratch memory of either pass: at most one number for every 64 of x, and some for each image and channel.
// Throws ArgumentError for sizes outside their limits.
std::int64_t weighted_block_workspace_bytes(const WeightedBlockSizes& sizes);

// No buffer may overlap another. Throw ArgumentError, before anything is written, when an argument is missing.
void weighted_block(const WeightedBlockArguments& arguments);
void weighted_block_backward(const WeightedBlockArguments& arguments);

}  // namespace etnet
