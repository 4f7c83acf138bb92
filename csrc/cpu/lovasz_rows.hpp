// The loops over pixels in which the Lovasz-Softmax kernels spend their time, compiled for several widths of vectors.
#pragma once

#include <cstdint>

namespace etnet {

// What the values of a target mean. An ignored value is ignored also where it is a class index.
struct TargetRule {
    std::int64_t channels;
    bool has_ignore_index;
    std::int64_t ignore_index;
};

constexpr std::int32_t kIgnoredLabel = -1;
constexpr std::int32_t kInvalidLabel = -2;

// Class index, kIgnoredLabel or kInvalidLabel of `count` pixels.
void classify(const std::uint8_t* target, std::int64_t count, const TargetRule& rule, std::int32_t* labels);
void classify(const std::int32_t* target, std::int64_t count, const TargetRule& rule, std::int32_t* labels);
void classify(const std::int64_t* target, std::int64_t count, const TargetRule& rule, std::int32_t* labels);

// Scores of two classes of consecutive pixels.
struct ScoresOfTwo {
    const float* first;
    const float* second;
    std::int64_t count;
};

// Errors of pixels with two classes: the other class's probability; 0 for labels below 0. False if a probability that
// counts is NaN.
bool errors_of_two(const ScoresOfTwo& scores, const std::int32_t* labels, float* errors);

// Where pixels with two classes are counted in a table [2, bins] with a place for the ignored behind it:
// label * bins + bin of the error, or 2 * bins. False as above.
bool place_two(const ScoresOfTwo& scores, const std::int32_t* labels, std::int32_t bins, std::int32_t* places);

// The same pixels' derivative of the softmax, signed as the gradient of class 0, and their places in weights [2, bins];
// 0 and a place within the table for ignored pixels.
void change_two(const ScoresOfTwo& scores, const std::int32_t* labels, std::int32_t bins, float scale, float* changes,
                std::int32_t* places);

// row = exp(scores - largest), added to `sum`.
void exponentials(const float* scores, const float* largest, std::int64_t count, float* row, float* sum);

// Error of each pixel for the class `member` from that class's probability in `row`, as a place in a table [2, bins]:
// members in the second half. `ignored` is the place of labels below 0.
void place_errors(const float* row, const std::int32_t* labels, std::int32_t member, std::int64_t count,
                  std::int32_t bins, std::int32_t ignored, std::int32_t* places);

}  // namespace etnet
