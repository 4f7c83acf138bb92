// Asks the system to back a large buffer with large pages: fresh memory is then faulted in 2 MiB at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace etnet {

// Only a hint, without effect on the contents: where the system refuses, small pages serve as before.
inline void prefer_huge_pages(void* memory, std::int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr std::uintptr_t kHugePage = std::uintptr_t{1} << 21;
    // Whole large pages inside the buffer only, so that no neighbour's memory is touched.
    const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
    const std::uintptr_t end =
        (reinterpret_cast<std::uintptr_t>(memory) + static_cast<std::uintptr_t>(bytes)) / kHugePage * kHugePage;
    if (end > begin) static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
#else
    static_cast<void>(memory);
    static_cast<void>(bytes);
#endif
}

}  // namespace etnet
