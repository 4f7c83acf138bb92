// Number formats by the names that Python gives them.
#pragma once

#include <cstdint>
#include <string>

#include "etnet/error.hpp"
#include "etnet/float_type.hpp"
#include "pointer.hpp"

namespace etnet {

inline FloatType float_type_of(const std::string& name, const char* argument) {
    require(name == "float32" || name == "float16" || name == "bfloat16", argument, " is '", name,
            "'; expected float32, float16 or bfloat16");
    if (name == "float32") return FloatType::float32;
    return name == "float16" ? FloatType::float16 : FloatType::bfloat16;
}

// Numbers of the type at the address, aligned to them.
inline void* numbers_at(std::uintptr_t address, FloatType type, const char* argument) {
    if (type == FloatType::float32) return pointer<float>(address, argument);
    return pointer<std::uint16_t>(address, argument);
}

}  // namespace etnet
