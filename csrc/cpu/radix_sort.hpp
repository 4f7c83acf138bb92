// Stable least-significant-digit radix sort of 64-bit words by their top 30 bits, on several threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "etnet/lovasz_formula.hpp"
#include "etnet/parallel.hpp"

namespace etnet {

constexpr int kSortKeyShift = 64 - kSortKeyBits;
constexpr int kSortDigitBits = 10;
constexpr std::int64_t kSortBuckets = std::int64_t{1} << kSortDigitBits;

using SortCounts = std::array<std::int64_t, kSortBuckets>;

// Makes counts[piece][bucket] the place where a piece's first word of a bucket goes: buckets in order, and pieces in
// order within a bucket, which keeps equal keys in their present order. False if all words share one bucket.
inline bool turn_counts_into_places(SortCounts* counts, int pieces, std::int64_t total) {
    std::int64_t place = 0;
    for (std::size_t bucket = 0; bucket < static_cast<std::size_t>(kSortBuckets); ++bucket) {
        const std::int64_t begin = place;
        for (int piece = 0; piece < pieces; ++piece) place += std::exchange(counts[piece][bucket], place);
        if (place - begin == total) return false;
    }
    return true;
}

// Writes words[0..count-1] to `sorted` by rising key (the top 30 bits), equal keys in their present order; `words` is
// overwritten. `counts` has room for `threads` entries. The result does not depend on `threads`: a stable order is
// unique. A digit that is the same in all words costs no move.
inline void sort_by_key(std::uint64_t* words, std::uint64_t* sorted, std::int64_t count, SortCounts* counts,
                        int threads) {
    if (count == 0) return;
    std::uint64_t* const result = sorted;
    const std::int64_t piece_size = (count + threads - 1) / threads;
    const int pieces = static_cast<int>((count + piece_size - 1) / piece_size);
    for (int shift = kSortKeyShift; shift < 64; shift += kSortDigitBits) {
        const auto bucket_of = [shift](std::uint64_t word) {
            return static_cast<std::size_t>(word >> shift) & static_cast<std::size_t>(kSortBuckets - 1);
        };
        parallel_for(count, piece_size, pieces, [&](std::int64_t begin, std::int64_t end, int) {
            SortCounts& mine = counts[begin / piece_size];
            mine.fill(0);
            for (std::int64_t i = begin; i < end; ++i) ++mine[bucket_of(words[i])];
        });
        if (!turn_counts_into_places(counts, pieces, count)) continue;
        parallel_for(count, piece_size, pieces, [&](std::int64_t begin, std::int64_t end, int) {
            SortCounts& next = counts[begin / piece_size];
            for (std::int64_t i = begin; i < end; ++i) sorted[next[bucket_of(words[i])]++] = words[i];
        });
        std::swap(words, sorted);
    }
    if (words != result) std::copy_n(words, count, result);
}

}  // namespace etnet
