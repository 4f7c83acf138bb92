// The two methods of ops/lovasz_softmax.hpp for one segment on the CPU.
#pragma once

#include <cstdint>

#include "lovasz_inputs.hpp"
#include "lovasz_segment.hpp"
#include "radix_sort.hpp"

namespace etnet {

struct LovaszBuffers {
    float* gradient = nullptr;       // laid out as the logits; nullptr: loss only
    float* probabilities = nullptr;  // [N, C, P]; nullptr for two classes
};

constexpr std::int64_t kRanks = 8192;  // ranked pixels that are weighed, and whose losses are summed, in one go

struct RankChunk {
    std::int64_t members;  // pixels in the chunk whose label bit is set; then those before it
    double loss;
};

struct SortScratch {
    std::uint64_t* words;    // [pixels of the segment]; may be the segment's gradient where it has two classes
    std::uint64_t* ordered;  // [pixels of the segment]
    SortCounts* counts;      // [threads]
    RankChunk* chunks;       // [pixels of the segment / kRanks, rounded up]
};

constexpr std::int64_t kIgnoredPlaces = 16;  // behind a table of counts; one is used, the others keep it aligned

struct HistogramScratch {
    std::uint32_t* counts;  // [threads, tables, 2 * bins + kIgnoredPlaces], tables = 1 for two classes, else C
    float* rows;            // [threads, 2, C, kBlock] probabilities and slopes; unless there are two classes
    float* weights;         // [tables, 2, bins], written
};

struct LookUp {
    const float* weights;  // [tables, 2, bins]
    float scale;
    float* rows;      // as above
    float* gradient;  // laid out as the logits
};

// Both return the segment's share of the loss, NaN if a probability that counts is NaN. Sorting also writes the
// segment's gradient, and the histogram its weights (neither if the loss is NaN).
double lovasz_by_sorting(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels,
                         const LovaszBuffers& buffers, const SortScratch& scratch);
double lovasz_by_histogram(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels, std::int64_t bins,
                           const HistogramScratch& scratch);

// Writes the segment's gradient from weights that the histogram wrote; `shares` and `valid` of the segment are not
// used.
void look_up_lovasz(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels, std::int64_t bins,
                    const LookUp& look_up);

}  // namespace etnet
