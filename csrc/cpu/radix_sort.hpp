// Stable least-significant-digit radix sort of 64-bit words by their top 30 bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace etnet {

constexpr int kSortKeyBits = 30;
constexpr int kSortKeyShift = 64 - kSortKeyBits;

// Sorts words[0..count-1] by rising key (the top 30 bits), equal keys in their present order, and returns where the
// result lies: `words` or `scratch`, both of `count` words. A digit that is the same in all words costs no pass.
inline std::uint64_t* sort_by_key(std::uint64_t* words, std::uint64_t* scratch, std::int64_t count) {
    constexpr int kDigits = 3;
    constexpr int kDigitBits = kSortKeyBits / kDigits;
    constexpr std::size_t kBuckets = std::size_t{1} << kDigitBits;
    const auto digit = [](std::uint64_t word, int position) {
        return static_cast<std::size_t>(word >> (kSortKeyShift + position * kDigitBits)) & (kBuckets - 1);
    };

    std::array<std::array<std::int64_t, kBuckets>, kDigits> ends{};
    for (std::int64_t i = 0; i < count; ++i) {
        for (int position = 0; position < kDigits; ++position) {
            ++ends[static_cast<std::size_t>(position)][digit(words[i], position)];
        }
    }
    for (int position = 0; position < kDigits; ++position) {
        auto& next = ends[static_cast<std::size_t>(position)];
        if (count == 0 || next[digit(words[0], position)] == count) continue;
        std::int64_t begin = 0;
        for (std::int64_t& bucket : next) begin += std::exchange(bucket, begin);
        for (std::int64_t i = 0; i < count; ++i) scratch[next[digit(words[i], position)]++] = words[i];
        std::swap(words, scratch);
    }
    return words;
}

}  // namespace etnet
