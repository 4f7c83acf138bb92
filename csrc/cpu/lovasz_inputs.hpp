// Logits and targets of any supported type and layout, read a block of pixels at a time.
#pragma once

#include <array>
#include <cstdint>

#include "etnet/ops/lovasz_softmax.hpp"
#include "half_precision.hpp"
#include "lovasz_rows.hpp"

namespace etnet {

constexpr std::int64_t kBlock = 1024;  // pixels whose numbers stay in the first-level cache

// Aligned to the vectors that lovasz_rows.cpp reads and writes them in.
struct alignas(64) FloatBlock : std::array<float, kBlock> {};
struct alignas(64) LabelBlock : std::array<std::int32_t, kBlock> {};

// Asks for memory that will be read soon: up to four streams of cache lines, one line of each for every kStep pixels.
//
// Counting in a table and looking up in one wait for nothing but the table, and in the meantime the processor forgets
// which memory it was reading ahead; asking for it in these loops keeps it busy (forward 8.4 to 5.5 ms of one core for
// 16 x 512 x 512 pixels and two classes).
class ReadAhead {
  public:
    static constexpr std::int64_t kStep = 16;

    void add(std::uintptr_t address, std::int64_t bytes_per_step) { streams_[size_++] = {address, bytes_per_step}; }

    // For the pixels step * kStep and following. Addresses behind the end of a buffer are allowed: this is only a hint.
    void ask(std::int64_t step) const {
#ifdef __GNUC__
        for (std::size_t i = 0; i < size_; ++i) {
            const auto offset = static_cast<std::uintptr_t>(step * streams_[i].bytes_per_step);
            __builtin_prefetch(reinterpret_cast<const void*>(streams_[i].address + offset));
        }
#else
        static_cast<void>(step);
#endif
    }

  private:
    struct Stream {
        std::uintptr_t address;
        std::int64_t bytes_per_step;
    };
    std::array<Stream, 4> streams_{};
    std::size_t size_ = 0;
};

// Pixels first..first+count-1 of an image.
struct PixelBlock {
    std::int64_t image;
    std::int64_t first;
    std::int64_t count;  // 1..kBlock
};

class LovaszInputs {
  public:
    explicit LovaszInputs(const LovaszSoftmaxArguments& arguments)
        : arguments_(arguments),
          channels_(arguments.sizes.channels),
          pixels_(arguments.sizes.height * arguments.sizes.width),
          pixel_stride_(arguments.sizes.channels_last ? channels_ : 1),
          channel_stride_(arguments.sizes.channels_last ? 1 : pixels_) {}

    // Where the logit of class 0 of the block's first pixel is; that of its pixel i and class c is
    // i * pixel_stride() + c * channel_stride() further.
    std::int64_t offset(const PixelBlock& block) const {
        return block.image * channels_ * pixels_ + block.first * pixel_stride_;
    }
    std::int64_t pixel_stride() const { return pixel_stride_; }
    std::int64_t channel_stride() const { return channel_stride_; }

    // Scores of one class in float32: in `room`, or the logits themselves where they lie just so.
    const float* scores(const PixelBlock& block, std::int64_t channel, FloatBlock& room) const {
        const std::int64_t start = offset(block) + channel * channel_stride_;
        switch (arguments_.logits_type) {
            case LogitsType::float32: {
                const float* row = static_cast<const float*>(arguments_.logits) + start;
                if (pixel_stride_ == 1) return row;
                return gather(row, block.count, room);
            }
            case LogitsType::float16:
                return gather(static_cast<const HalfFloat*>(arguments_.logits) + start, block.count, room);
            default:
                return gather(static_cast<const BrainFloat*>(arguments_.logits) + start, block.count, room);
        }
    }

    // Class index, kIgnoredLabel or kInvalidLabel of each pixel.
    void labels(const PixelBlock& block, LabelBlock& out) const {
        const std::int64_t start = block.image * pixels_ + block.first;
        const TargetRule rule{channels_, arguments_.has_ignore_index, arguments_.ignore_index};
        switch (arguments_.target_type) {
            case TargetType::uint8:
                return classify(static_cast<const std::uint8_t*>(arguments_.target) + start, block.count, rule,
                                out.data());
            case TargetType::int32:
                return classify(static_cast<const std::int32_t*>(arguments_.target) + start, block.count, rule,
                                out.data());
            default:
                return classify(static_cast<const std::int64_t*>(arguments_.target) + start, block.count, rule,
                                out.data());
        }
    }

    // What will be read of the block that follows in memory: scores of two classes and targets.
    ReadAhead after(const PixelBlock& block) const {
        ReadAhead ahead = after(block, 0);
        add_scores_after(block, 1, ahead);
        return ahead;
    }

    // The same, shared out among the classes.
    ReadAhead after(const PixelBlock& block, std::int64_t channel) const {
        ReadAhead ahead;
        add_scores_after(block, channel, ahead);
        if (channel > 0) return ahead;
        const std::int64_t bytes = bytes_of_target();
        const auto base = reinterpret_cast<std::uintptr_t>(arguments_.target);
        const std::int64_t start = block.image * pixels_ + block.first + kBlock;
        for (const std::int64_t half : {start, start + ReadAhead::kStep / 2}) {  // targets of 8 bytes fill two lines
            ahead.add(base + static_cast<std::uintptr_t>(half * bytes), ReadAhead::kStep * bytes);
        }
        return ahead;
    }

    std::int64_t target(std::int64_t image, std::int64_t pixel) const {
        const std::int64_t index = image * pixels_ + pixel;
        switch (arguments_.target_type) {
            case TargetType::uint8:
                return static_cast<const std::uint8_t*>(arguments_.target)[index];
            case TargetType::int32:
                return static_cast<const std::int32_t*>(arguments_.target)[index];
            default:
                return static_cast<const std::int64_t*>(arguments_.target)[index];
        }
    }

  private:
    template <class Number>
    const float* gather(const Number* row, std::int64_t count, FloatBlock& room) const {
        float* out = room.data();
        if (pixel_stride_ == 1) {
            for (std::int64_t i = 0; i < count; ++i) out[i] = widen(row[i]);
        } else {
            for (std::int64_t i = 0; i < count; ++i) out[i] = widen(row[i * pixel_stride_]);
        }
        return out;
    }

    void add_scores_after(const PixelBlock& block, std::int64_t channel, ReadAhead& ahead) const {
        const std::int64_t bytes = arguments_.logits_type == LogitsType::float32 ? 4 : 2;
        // Where classes lie together, the class stands for its share of a step.
        const std::int64_t part = channel * (pixel_stride_ == 1 ? channel_stride_ : ReadAhead::kStep);
        const std::int64_t start = offset(block) + kBlock * pixel_stride_ + part;
        ahead.add(reinterpret_cast<std::uintptr_t>(arguments_.logits) + static_cast<std::uintptr_t>(start * bytes),
                  ReadAhead::kStep * pixel_stride_ * bytes);
    }

    std::int64_t bytes_of_target() const {
        if (arguments_.target_type == TargetType::uint8) return 1;
        return arguments_.target_type == TargetType::int32 ? 4 : 8;
    }

    const LovaszSoftmaxArguments& arguments_;
    std::int64_t channels_;
    std::int64_t pixels_;
    std::int64_t pixel_stride_;
    std::int64_t channel_stride_;
};

}  // namespace etnet
