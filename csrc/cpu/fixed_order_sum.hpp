// Sums of float32 numbers in an order that no machine changes.
#pragma once

#include <algorithm>
#include <cstdint>

// Functions marked so are compiled for each of these instruction sets; the loader takes the best that the processor
// has. Results are the same: the order of all sums is fixed, and no product is contracted with a sum.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define ETNET_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#define ETNET_INTO_CLONE __attribute__((always_inline))
#else
#define ETNET_VECTOR_CLONES
#define ETNET_INTO_CLONE
#endif

namespace etnet {

// Sum of term(0)..term(count - 1). The 32 partial sums have the same order for vectors of any width.
template <class Term>
ETNET_INTO_CLONE inline double fixed_order_sum(std::int64_t count, const Term& term) {
    using std::int64_t;
    constexpr int64_t kRun = 2048;  // numbers that are summed in float32
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

}  // namespace etnet
