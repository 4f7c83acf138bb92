// The loops over pixels that spend their time in the exponential.
#pragma once

#include <cstdint>

namespace etnet {

// Errors of `count` pixels with these scores of two classes: the other class's probability; 0 for labels below 0. False
// if a probability that counts is NaN.
bool errors_of_scores(const float* first, const float* second, const std::int32_t* labels, std::int64_t count,
                      float* errors);

}  // namespace etnet
