// The limits that ops/weighted_block.hpp sets, checked before any work starts; shared by the CPU and the CUDA version.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "etnet/error.hpp"
#include "etnet/ops/weighted_block.hpp"

namespace etnet {

inline void check_sizes(const WeightedBlockSizes& sizes) {
    constexpr std::int64_t kMaximalNumbers = std::int64_t{1} << 33;
    constexpr std::int64_t kMaximalMatrix = (std::int64_t{1} << 31) - 1;
    const auto sides = {sizes.images, sizes.channels, sizes.height, sizes.width};
    std::int64_t room = kMaximalNumbers;  // divided instead of multiplied: the product may not fit 64 bits
    for (const std::int64_t size : sides) {
        require(size >= 1, "weighted_block: sizes [", sizes.images, ", ", sizes.channels, ", ", sizes.height, ", ",
                sizes.width, "] must all be at least 1");
        room /= size;
    }
    require(room > 0, "weighted_block: [", sizes.images, ", ", sizes.channels, ", ", sizes.height, ", ", sizes.width,
            "] are more than 2^33 numbers; split the batch");
    require(sizes.hidden >= 1 && sizes.hidden <= kMaximalMatrix / sizes.channels, "weighted_block: ", sizes.hidden,
            " hidden channels for ", sizes.channels, " channels; expected 1..", kMaximalMatrix / sizes.channels);
    require(sizes.images <= kMaximalNumbers / sizes.hidden, "weighted_block: ", sizes.images, " images with ",
            sizes.hidden, " hidden channels are more than 2^33 numbers; split the batch");
    require(sizes.threads >= 1, "weighted_block: threads is ", sizes.threads, "; expected at least 1");
}

struct NamedPointer {
    const char* name;
    const void* pointer;
};

inline void check_buffers(const WeightedBlockArguments& arguments, std::initializer_list<NamedPointer> buffers,
                          std::int64_t needed_bytes) {
    for (const NamedPointer& buffer : buffers) {
        require(buffer.pointer != nullptr, "weighted_block: ", buffer.name, " is a null pointer");
    }
    require(arguments.workspace_bytes >= needed_bytes, "weighted_block: the workspace has ", arguments.workspace_bytes,
            " bytes; expected ", needed_bytes);
    require(needed_bytes == 0 || arguments.workspace != nullptr, "weighted_block: workspace is a null pointer");
}

inline void check_forward(const WeightedBlockArguments& arguments, std::int64_t needed_bytes) {
    check_buffers(arguments,
                  {{"x", arguments.x},
                   {"w1", arguments.w1},
                   {"b1", arguments.b1},
                   {"w2", arguments.w2},
                   {"b2", arguments.b2},
                   {"state", arguments.state},
                   {"out", arguments.out}},
                  needed_bytes);
}

inline void check_backward(const WeightedBlockArguments& arguments, std::int64_t needed_bytes) {
    check_buffers(arguments,
                  {{"x", arguments.x},
                   {"w1", arguments.w1},
                   {"w2", arguments.w2},
                   {"state", arguments.state},
                   {"gradient_out", arguments.gradient_out},
                   {"gradient_x", arguments.gradient_x},
                   {"gradient_w1", arguments.gradient_w1},
                   {"gradient_b1", arguments.gradient_b1},
                   {"gradient_w2", arguments.gradient_w2},
                   {"gradient_b2", arguments.gradient_b2}},
                  needed_bytes);
}

}  // namespace etnet
