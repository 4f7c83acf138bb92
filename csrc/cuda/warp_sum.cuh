// Sum over the threads of a warp.
#pragma once

namespace etnet {

constexpr int kWarp = 32;

// All 32 threads call it and get the same sum.
__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFU, value, step);
    return value;
}

}  // namespace etnet
