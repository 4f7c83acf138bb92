// Logits and targets of any supported type and layout, read a block of pixels at a time.
#pragma once

#include <array>
#include <cstdint>

#include "etnet/ops/lovasz_softmax.hpp"
#include "half_precision.hpp"

namespace etnet {

constexpr std::int64_t kBlock = 1024;  // pixels whose numbers stay in the first-level cache

using FloatBlock = std::array<float, kBlock>;
using LabelBlock = std::array<std::int32_t, kBlock>;

constexpr std::int32_t kIgnoredLabel = -1;
constexpr std::int32_t kInvalidLabel = -2;

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
        switch (arguments_.target_type) {
            case TargetType::uint8:
                return classify(static_cast<const std::uint8_t*>(arguments_.target) + start, block.count, out);
            case TargetType::int32:
                return classify(static_cast<const std::int32_t*>(arguments_.target) + start, block.count, out);
            default:
                return classify(static_cast<const std::int64_t*>(arguments_.target) + start, block.count, out);
        }
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

    template <class Target>
    void classify(const Target* target, std::int64_t count, LabelBlock& out) const {
        const auto channels = static_cast<std::uint64_t>(channels_);
        for (std::int64_t i = 0; i < count; ++i) {
            const auto value = static_cast<std::uint64_t>(static_cast<std::int64_t>(target[i]));
            // Channels fit 31 bits (check_sizes), so a class index keeps its value.
            out[static_cast<std::size_t>(i)] = value < channels ? static_cast<std::int32_t>(value) : kInvalidLabel;
        }
        if (!arguments_.has_ignore_index) return;
        const std::int64_t ignored = arguments_.ignore_index;
        for (std::int64_t i = 0; i < count; ++i) {
            std::int32_t& label = out[static_cast<std::size_t>(i)];
            label = static_cast<std::int64_t>(target[i]) == ignored ? kIgnoredLabel : label;
        }
    }

    const LovaszSoftmaxArguments& arguments_;
    std::int64_t channels_;
    std::int64_t pixels_;
    std::int64_t pixel_stride_;
    std::int64_t channel_stride_;
};

}  // namespace etnet
