// What the two methods of ops/lovasz_softmax.hpp share on the CPU: a segment, its blocks, and softmax of a block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "etnet/ops/lovasz_softmax.hpp"
#include "etnet/parallel.hpp"
#include "lovasz_inputs.hpp"
#include "lovasz_rows.hpp"

namespace etnet {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct ClassShare {
    std::int64_t total;  // G, the pixels of the class in the segment
    double weight;       // 1 / (counted classes of the segment) / (counted segments); 0 for a class that is not counted
};

struct Segment {
    std::int64_t first_image;
    std::int64_t images;
    std::int64_t pixels;       // of one image
    std::int64_t valid;        // pixels of the segment that are not ignored, at least 1
    const ClassShare* shares;  // [C]
    int threads;               // that work on this segment

    std::int64_t size() const { return images * pixels; }
    // Place of a block's first pixel among the pixels of the segment.
    std::int64_t place(const PixelBlock& block) const { return (block.image - first_image) * pixels + block.first; }
};

// Calls body(block, worker) for blocks that together cover the segment, in parallel.
template <class Body>
void for_each_block(const Segment& segment, const Body& body) {
    const std::int64_t blocks = (segment.pixels + kBlock - 1) / kBlock;
    // At least four pieces for each thread, of up to 1 MiB of each class: threads that touch the same large page first
    // wait for each other.
    const std::int64_t grain = std::clamp<std::int64_t>(segment.images * blocks / (4 * segment.threads), 16, 256);
    parallel_for(
        segment.images * blocks, grain, segment.threads, [&](std::int64_t begin, std::int64_t end, int worker) {
            for (std::int64_t i = begin; i < end; ++i) {
                const std::int64_t first = i % blocks * kBlock;
                body(PixelBlock{segment.first_image + i / blocks, first, std::min(segment.pixels - first, kBlock)},
                     worker);
            }
        });
}

// The scores of a block with two classes in float32: in `room`, or the logits themselves where they lie just so.
inline ScoresOfTwo scores_of_two(const LovaszInputs& inputs, const PixelBlock& block, FloatBlock (&room)[2]) {
    return {inputs.scores(block, 0, room[0]), inputs.scores(block, 1, room[1]), block.count};
}

// Softmax of a block into rows[c * row_stride + i], 0 at ignored pixels. False if a probability that counts is NaN.
inline bool softmax_of_block(const LovaszInputs& inputs, const PixelBlock& block, const LabelBlock& labels,
                             std::int64_t channels, float* rows, std::int64_t row_stride) {
    FloatBlock room;
    FloatBlock largest;
    FloatBlock sum;
    const auto count = static_cast<std::size_t>(block.count);
    largest.fill(-std::numeric_limits<float>::infinity());
    sum.fill(0.0F);
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        const float* scores = inputs.scores(block, channel, room);
        for (std::size_t i = 0; i < count; ++i) largest[i] = scores[i] > largest[i] ? scores[i] : largest[i];
    }
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        const float* scores = inputs.scores(block, channel, room);
        float* row = rows + channel * row_stride;
        exponentials(scores, largest.data(), block.count, row, sum.data());
    }
    std::int32_t bad = 0;
    for (std::size_t i = 0; i < count; ++i) {
        bad |= static_cast<std::int32_t>(sum[i] != sum[i]) & static_cast<std::int32_t>(labels[i] >= 0);
    }
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        float* row = rows + channel * row_stride;
        for (std::size_t i = 0; i < count; ++i) {
            const float probability = row[i] / sum[i];
            row[i] = labels[i] >= 0 ? probability : 0.0F;
        }
    }
    return bad == 0;
}

}  // namespace etnet
