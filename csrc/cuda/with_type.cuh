// From a number format at run time to its type on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "etnet/float_type.hpp"

namespace etnet {

// Calls body with a number of that type.
template <class Body>
void with_type(FloatType type, const Body& body) {
    if (type == FloatType::float32) {
        body(float{});
    } else if (type == FloatType::float16) {
        body(__half{});
    } else {
        body(__nv_bfloat16{});
    }
}

}  // namespace etnet
