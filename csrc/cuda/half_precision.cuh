// The number formats on the device: widened to float32 exactly, narrowed to the nearest (ties to even).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace etnet {

__device__ inline float widen(float value) {
    return value;
}
__device__ inline float widen(__half value) {
    return __half2float(value);
}
__device__ inline float widen(__nv_bfloat16 value) {
    return __bfloat162float(value);
}

__device__ inline void narrow(float value, float& out) {
    out = value;
}
__device__ inline void narrow(float value, __half& out) {
    out = __float2half_rn(value);
}
__device__ inline void narrow(float value, __nv_bfloat16& out) {
    out = __float2bfloat16_rn(value);
}

}  // namespace etnet
