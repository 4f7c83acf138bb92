// The arithmetic of ops/lovasz_softmax.hpp for one pixel or one bin, shared by the CPU and the CUDA version.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define ETNET_HOST_DEVICE __host__ __device__
#else
#define ETNET_HOST_DEVICE
#endif

namespace etnet {

// The sort key of an error is its float32 bit pattern, subtracted from that of 1.0: patterns of numbers >= 0 rise with
// the number, so rising keys are falling errors, and errors in 0..1 need the 30 bits of 0..0x3F800000.
constexpr std::uint32_t kOneBits = 0x3F800000U;
constexpr int kSortKeyBits = 30;
constexpr std::uint32_t kIgnoredKey = (1U << kSortKeyBits) - 1;  // above every error's key: ignored pixels come last

ETNET_HOST_DEVICE inline std::uint32_t key_of(float error) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &error, sizeof bits);
    return kOneBits - bits;
}

ETNET_HOST_DEVICE inline float error_of(std::uint32_t key) {
    const std::uint32_t bits = kOneBits - key;
    float error = 0.0F;
    std::memcpy(&error, &bits, sizeof error);
    return error;
}

// Nearest of the bins, whose centres are i / (bins - 1), for errors in 0..1; 0 for NaN. `last_bin` is bins - 1 as a
// float.
ETNET_HOST_DEVICE inline std::int32_t bin_of(float error, float last_bin) {
    return static_cast<std::int32_t>((error >= 0.0F ? error : 0.0F) * last_bin + 0.5F);
}

ETNET_HOST_DEVICE inline double foreground_weight(double total, double background_before) {
    return 1.0 / (total + background_before);
}

ETNET_HOST_DEVICE inline double background_weight(double total, double foreground_before, double background_before) {
    const double united = total + background_before;
    return united == 0.0 ? 1.0 : (total - foreground_before) / (united * (united + 1.0));
}

// With two classes a pixel's error m is the same for both, so one ranking serves them. For a pixel of class a of weight
// w_a, beside a class b: d(a) = -w_a g_foreground, d(b) = w_b g_background, and the chain through softmax leaves
//     gradient(b) = -gradient(a) = m (1 - m) slope,     slope = w_a / (G_a + n_b) + w_b (G_b - n_b) / (U (U + 1))
// with n_a, n_b pixels of either class ranked before it and U = G_b + n_a; m slope is its share of the loss. The two
// fractions are added before the one division.
struct ClassOfTwo {
    double weight;
    double total;
    double before;
};

ETNET_HOST_DEVICE inline double slope_of_two(const ClassOfTwo& own, const ClassOfTwo& other) {
    const double united = own.total + other.before;
    const double other_united = other.total + own.before;
    // other_united = 0: the first pixel ranked, and no pixel of class b: its weight for class b is 1.
    const double product = other_united == 0.0 ? 1.0 : other_united * (other_united + 1.0);
    const double rest = other_united == 0.0 ? 1.0 : other.total - other.before;
    return (own.weight * product + other.weight * rest * united) / (united * product);
}

// The pixels of one bin have equal errors, so each order among them gives a valid derivative; these weights are the
// mean of "foreground first" and "background first".
struct Bin {
    double total;              // G
    double foreground_before;  // F
    double background_before;  // B
    double foreground;         // f pixels in the bin
    double background;         // b pixels in the bin
};

ETNET_HOST_DEVICE inline double bin_foreground_weight(const Bin& bin) {
    const double united = bin.total + bin.background_before;
    return 0.5 / united + 0.5 / (united + bin.background);
}

ETNET_HOST_DEVICE inline double bin_background_weight(const Bin& bin) {
    const double united = bin.total + bin.background_before;
    if (united == 0.0) return 1.0 / bin.background;
    return (bin.total - bin.foreground_before - 0.5 * bin.foreground) / (united * (united + bin.background));
}

}  // namespace etnet
