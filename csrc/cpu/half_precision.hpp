// The two 16-bit formats: widened to float32 exactly, narrowed to the nearest (ties to even). Loops over them
// vectorise.
#pragma once

#include <cstdint>
#include <cstring>

namespace etnet {

struct BrainFloat {
    std::uint16_t bits;
};
struct HalfFloat {
    std::uint16_t bits;
};

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float float_of(std::uint32_t bits) {
    float value = 0.0F;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float widen(float value) {
    return value;
}
inline float widen(BrainFloat value) {
    return float_of(static_cast<std::uint32_t>(value.bits) << 16);
}
inline float widen(HalfFloat value) {
    // The exponent is moved to its place in float32 and its bias corrected by a multiplication, also for denormals.
    std::uint32_t bits = bits_of(float_of(static_cast<std::uint32_t>(value.bits & 0x7FFFU) << 13) * 0x1p112F);
    bits |= (value.bits & 0x7C00U) == 0x7C00U ? 0x7F800000U : 0U;
    bits |= static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
    return float_of(bits);
}

inline void narrow(float value, float& out) {
    out = value;
}
inline void narrow(float value, BrainFloat& out) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
    out.bits = static_cast<std::uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? 0x7FC0U : rounded);
}
inline void narrow(float value, HalfFloat& out) {
    const std::uint32_t magnitude = bits_of(value) & 0x7FFFFFFFU;
    // From 2^-14: the bias of the exponent changes from 127 to 15, 13 bits are rounded off; 65520 and above carry to
    // inf.
    const std::uint32_t normal = (magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
    // Below 2^-14: in 0.5..1 the last place of float32 is 2^-24, that of the denormals of float16.
    const std::uint32_t denormal = bits_of(float_of(magnitude) + 0.5F) - 0x3F000000U;
    std::uint32_t bits = magnitude < 0x38800000U ? denormal : normal;
    bits = magnitude >= 0x47800000U ? 0x7C00U : bits;
    bits = magnitude > 0x7F800000U ? 0x7E00U : bits;
    out.bits = static_cast<std::uint16_t>(bits | ((bits_of(value) >> 16) & 0x8000U));
}

}  // namespace etnet
