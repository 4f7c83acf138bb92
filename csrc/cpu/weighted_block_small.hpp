// What the weighted block computes for one image between its passes over the map: two small matrix products.
#pragma once

#include "etnet/ops/weighted_block.hpp"

namespace etnet {

// Small arrays of one image.
struct SmallArrays {
    float* mean;    // [C]
    float* hidden;  // [R]
    float* scale;   // [C]
    float* sum;     // [C] backward: sum over pixels of g x, then a
    float* slope;   // [R] backward: e
    float* shift;   // [C] backward: what every pixel's gradient of x gets
};

// The parameters in float32: those given, or copies.
struct Parameters {
    const float* w1;
    const float* b1;
    const float* w2;
    const float* b2;
};

// Forward: `mean` holds the sums over the pixels and becomes the mean; hidden and scale are computed.
void weigh(const WeightedBlockSizes& sizes, const Parameters& parameters, const SmallArrays& rows);

// Backward, by the chain rule: `sum` becomes a; slope and shift are computed.
void chain(const WeightedBlockSizes& sizes, const Parameters& parameters, const SmallArrays& rows);

// Adds what one image brings to the gradients of the parameters.
void add_image(const WeightedBlockSizes& sizes, const SmallArrays& rows, const WeightedBlockArguments& gradients);

}  // namespace etnet
