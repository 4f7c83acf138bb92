// exp for the softmax: a polynomial that compilers turn into vector code, which std::exp prevents.
#pragma once

#include <cstdint>
#include <cstring>

namespace etnet {

// For exponents in -126..127; anything for others.
inline float power_of_two(std::int32_t exponent) {
    const std::uint32_t bits = static_cast<std::uint32_t>(exponent + 127) << 23;
    float result = 0.0F;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// exp(x) for x <= 0 within 2 units in the last place (denormal results included), exactly 1 at 0, NaN for NaN.
inline float exponential(float x) {
    constexpr float kLog2E = 1.44269504F;
    constexpr float kLog2High = 0.693359375F;  // 9 bits: its product with an exponent is exact
    constexpr float kLog2Low = -2.12194440e-4F;
    constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
    const float clamped = x < -104.0F ? -104.0F : x;  // exp(-104) rounds to 0; the comparison keeps NaN
    const float shifted = clamped * kLog2E + kRounder;
    const float whole = shifted - kRounder;
    std::int32_t bits = 0;
    std::memcpy(&bits, &shifted, sizeof bits);
    const std::int32_t exponent = bits - 0x4B400000;
    const float rest = (clamped - whole * kLog2High) - whole * kLog2Low;  // |rest| <= log(2) / 2
    float series = 1.0F / 5040.0F;  // of exp up to rest^7: the next term is below 6e-9
    series = series * rest + 1.0F / 720.0F;
    series = series * rest + 1.0F / 120.0F;
    series = series * rest + 1.0F / 24.0F;
    series = series * rest + 1.0F / 6.0F;
    series = series * rest + 0.5F;
    const float value = series * rest * rest + rest + 1.0F;
    const std::int32_t half = exponent >> 1;  // two factors, because 2^exponent alone may be below the normal range
    return value * power_of_two(half) * power_of_two(exponent - half);
}

}  // namespace etnet
