#include "lovasz_rows.hpp"

#include <cmath>
#include <limits>

#include "etnet/lovasz_formula.hpp"
#include "exponential.hpp"

// More versions of a function, for processors with 8 and 16 numbers per vector register, chosen when the module is
// loaded. They give the same bits, since products and sums are never fused (-ffp-contract=off), and bring loss and
// gradient of the histogram method from 34 to 20 and 17 ms (one core, 16 x 2 x 512 x 512). Not under sanitizers, which
// the choice at load time comes before.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define ETNET_WIDE_VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ETNET_WIDE_VERSIONS
#endif

namespace etnet {
namespace {

using std::int32_t;
using std::int64_t;

template <class Target>
inline void classify_all(const Target* target, int64_t count, const TargetRule& rule, int32_t* labels) {
    const auto channels = static_cast<std::uint64_t>(rule.channels);
    for (int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<std::uint64_t>(static_cast<int64_t>(target[i]));
        // Channels fit 31 bits (check_sizes), so a class index keeps its value.
        labels[i] = value < channels ? static_cast<int32_t>(value) : kInvalidLabel;
    }
    if (!rule.has_ignore_index) return;
    for (int64_t i = 0; i < count; ++i) {
        labels[i] = static_cast<int64_t>(target[i]) == rule.ignore_index ? kIgnoredLabel : labels[i];
    }
}

struct ErrorOfTwo {
    float error;  // the other class's probability
    bool fine;    // not NaN
};

inline ErrorOfTwo error_of_two(float first, float second, bool of_second) {
    const float advantage = of_second ? first - second : second - first;
    const float smaller = exponential(-std::fabs(advantage));
    const float larger = 1.0F / (1.0F + smaller);
    const float largest = first > second ? first : second;
    // A NaN passes into `advantage`; +inf, or -inf twice, is seen in `largest`.
    const bool fine = (advantage == advantage) & (std::fabs(largest) <= std::numeric_limits<float>::max());
    return {advantage > 0.0F ? larger : smaller * larger, fine};
}

}  // namespace

ETNET_WIDE_VERSIONS void classify(const std::uint8_t* target, int64_t count, const TargetRule& rule, int32_t* labels) {
    classify_all(target, count, rule, labels);
}
ETNET_WIDE_VERSIONS void classify(const int32_t* target, int64_t count, const TargetRule& rule, int32_t* labels) {
    classify_all(target, count, rule, labels);
}
ETNET_WIDE_VERSIONS void classify(const int64_t* target, int64_t count, const TargetRule& rule, int32_t* labels) {
    classify_all(target, count, rule, labels);
}

ETNET_WIDE_VERSIONS bool errors_of_two(const ScoresOfTwo& scores, const int32_t* labels, float* errors) {
    int32_t bad = 0;
    for (int64_t i = 0; i < scores.count; ++i) {
        const ErrorOfTwo error = error_of_two(scores.first[i], scores.second[i], labels[i] == 1);
        errors[i] = labels[i] >= 0 ? error.error : 0.0F;
        bad |= static_cast<int32_t>(!error.fine & (labels[i] >= 0));
    }
    return bad == 0;
}

ETNET_WIDE_VERSIONS bool place_two(const ScoresOfTwo& scores, const int32_t* labels, int32_t bins, int32_t* places) {
    const auto last_bin = static_cast<float>(bins - 1);
    int32_t bad = 0;
    for (int64_t i = 0; i < scores.count; ++i) {
        const ErrorOfTwo error = error_of_two(scores.first[i], scores.second[i], labels[i] == 1);
        // Errors lie in 0..1, so that the bin lies in 0..bins-1.
        const int32_t place = bin_of(error.error, last_bin) + (labels[i] == 1 ? bins : 0);
        places[i] = labels[i] >= 0 ? place : 2 * bins;
        bad |= static_cast<int32_t>(!error.fine & (labels[i] >= 0));
    }
    return bad == 0;
}

ETNET_WIDE_VERSIONS void change_two(const ScoresOfTwo& scores, const int32_t* labels, int32_t bins, float scale,
                                    float* changes, int32_t* places) {
    const auto last_bin = static_cast<float>(bins - 1);
    // Two loops: as one, the plain version is no vector code, because GCC turns its three conditions into one branch.
    for (int64_t i = 0; i < scores.count; ++i) {
        const float error = error_of_two(scores.first[i], scores.second[i], labels[i] == 1).error;
        changes[i] = labels[i] >= 0 ? error : 0.0F;
    }
    for (int64_t i = 0; i < scores.count; ++i) {
        const float change = scale * (changes[i] * (1.0F - changes[i]));
        places[i] = bin_of(changes[i], last_bin) + (labels[i] == 1 ? bins : 0);
        changes[i] = labels[i] == 1 ? change : -change;
    }
}

ETNET_WIDE_VERSIONS void exponentials(const float* scores, const float* largest, int64_t count, float* row,
                                      float* sum) {
    for (int64_t i = 0; i < count; ++i) {
        const float value = exponential(scores[i] - largest[i]);
        row[i] = value;
        sum[i] += value;
    }
}

ETNET_WIDE_VERSIONS void place_errors(const float* row, const int32_t* labels, int32_t member, int64_t count,
                                      int32_t bins, int32_t ignored, int32_t* places) {
    const auto last_bin = static_cast<float>(bins - 1);
    for (int64_t i = 0; i < count; ++i) {
        const bool of_member = labels[i] == member;
        const int32_t place = bin_of(of_member ? 1.0F - row[i] : row[i], last_bin) + (of_member ? bins : 0);
        places[i] = labels[i] >= 0 ? place : ignored;
    }
}

}  // namespace etnet
