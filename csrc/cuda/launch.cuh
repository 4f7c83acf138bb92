// Launches with a check after every one, and carving of one workspace into arrays.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "etnet/error.hpp"

namespace etnet {

inline void check_cuda(cudaError_t status, const char* step) {
    if (status == cudaSuccess) return;
    throw CudaError(std::string(step) + ": " + cudaGetErrorString(status));
}

template <class Kernel, class... Arguments>
void launch(const char* name, Kernel kernel, std::int64_t blocks, dim3 threads, std::size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
    if (blocks == 0) return;
    kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(arguments...);
    check_cuda(cudaGetLastError(), name);
}

inline std::int64_t divide_up(std::int64_t count, std::int64_t size) {
    return (count + size - 1) / size;
}

class DeviceLayout {
  public:
    explicit DeviceLayout(void* base) : base_(static_cast<std::byte*>(base)) {}

    template <class T>
    T* take(std::int64_t count) {
        constexpr std::int64_t kAlignment = 256;
        T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += divide_up(count * static_cast<std::int64_t>(sizeof(T)), kAlignment) * kAlignment;
        return result;
    }
    std::int64_t used() const { return used_; }

  private:
    std::byte* base_;
    std::int64_t used_ = 0;
};

}  // namespace etnet
