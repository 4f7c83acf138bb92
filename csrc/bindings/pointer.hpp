// Python passes buffers as integer addresses; this is where they become pointers.
#pragma once

#include <cstdint>

#include "etnet/error.hpp"

namespace etnet {

// The pointer at `address`, or nullptr for address 0; fails when it is not aligned to `alignment` bytes.
template <class T>
T* pointer(std::uintptr_t address, const char* name, std::size_t alignment = alignof(T)) {
    require(address % alignment == 0, name, ": address ", address, " is not a multiple of ", alignment);
    return reinterpret_cast<T*>(address);
}

}  // namespace etnet
