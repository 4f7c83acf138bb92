// LovaszMethod::sort on the CPU: list the pixels as words, sort them, weigh them in the order of their ranks.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "etnet/lovasz_formula.hpp"
#include "lovasz_methods.hpp"

namespace etnet {
namespace {

using std::int64_t;
using std::uint64_t;

// A pixel to be ranked is one word: 30 bits of key, 1 bit that tells its two kinds apart (label of two classes,
// foreground or background otherwise), 33 bits of position, which is where its class 0 lies among the N C P logits.
constexpr int kPositionBits = kSortKeyShift - 1;
constexpr uint64_t kMember = uint64_t{1} << kPositionBits;
constexpr uint64_t kPosition = kMember - 1;

uint64_t word_of(std::uint32_t key, bool member, int64_t position) {
    return static_cast<uint64_t>(key) << kSortKeyShift | static_cast<uint64_t>(member) << kPositionBits |
           static_cast<uint64_t>(position);
}

class SortedSegment {
  public:
    SortedSegment(const LovaszInputs& inputs, const Segment& segment, int64_t channels, const LovaszBuffers& buffers,
                  const SortScratch& scratch)
        : inputs_(inputs), segment_(segment), channels_(channels), buffers_(buffers), scratch_(scratch) {}

    double run_two() const {
        std::atomic<bool> fine{true};
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            LabelBlock labels;
            FloatBlock errors;
            inputs_.labels(block, labels);
            FloatBlock room[2];
            if (!errors_of_two(scores_of_two(inputs_, block, room), labels.data(), errors.data())) fine = false;
            list(block, labels, 1, errors.data());
        });
        if (!fine) return kNan;
        const double loss = weigh([&](const RankChunk& chunk, int64_t begin, int64_t end, const uint64_t* ranked) {
            return weigh_two(chunk, begin, end, ranked);
        });
        if (buffers_.gradient != nullptr) mirror_gradient();
        return loss;
    }

    double run_many() const {
        std::atomic<bool> fine{true};
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            LabelBlock labels;
            inputs_.labels(block, labels);
            if (!softmax_of_block(inputs_, block, labels, channels_, probabilities(block), segment_.pixels))
                fine = false;
        });
        if (!fine) return kNan;
        double loss = 0.0;
        for (int64_t channel = 0; channel < channels_; ++channel) {
            if (segment_.shares[channel].weight > 0.0) loss += run_class(channel);
        }
        if (buffers_.gradient != nullptr) chain_through_softmax();
        return loss;
    }

  private:
    float* probabilities(const PixelBlock& block) const {
        return buffers_.probabilities + block.image * channels_ * segment_.pixels + block.first;
    }

    // Words of a block; ignored pixels get the key that sorts behind all others.
    void list(const PixelBlock& block, const LabelBlock& labels, std::int32_t member, const float* errors) const {
        uint64_t* words = scratch_.words + segment_.place(block);
        const int64_t start = inputs_.offset(block);
        const int64_t stride = inputs_.pixel_stride();
        for (int64_t i = 0; i < block.count; ++i) {
            const std::int32_t label = labels[static_cast<std::size_t>(i)];
            const std::uint32_t key = label >= 0 ? key_of(errors[i]) : kIgnoredKey;
            words[i] = word_of(key, label == member, start + i * stride);
        }
    }

    double run_class(int64_t channel) const {
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            LabelBlock labels;
            FloatBlock errors;
            inputs_.labels(block, labels);
            const float* row = probabilities(block) + channel * segment_.pixels;
            const auto member = static_cast<std::int32_t>(channel);
            for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
                errors[i] = labels[i] == member ? 1.0F - row[i] : row[i];
            }
            list(block, labels, member, errors.data());
        });
        return weigh([&](const RankChunk& chunk, int64_t begin, int64_t end, const uint64_t* ranked) {
            return weigh_class(channel, chunk, begin, end, ranked);
        });
    }

    // Sorts the words and calls body(members before, first rank, end rank, ranked words) for chunks of ranks; the sum
    // of what it returns. Ignored pixels lie behind rank segment.valid.
    template <class Body>
    double weigh(const Body& body) const {
        sort_by_key(scratch_.words, scratch_.ordered, segment_.size(), scratch_.counts, segment_.threads);
        const uint64_t* ranked = scratch_.ordered;
        parallel_for(segment_.valid, kRanks, segment_.threads, [&](int64_t begin, int64_t end, int) {
            int64_t members = 0;
            for (int64_t rank = begin; rank < end; ++rank) members += (ranked[rank] & kMember) != 0 ? 1 : 0;
            scratch_.chunks[begin / kRanks].members = members;
        });
        const int64_t chunks = (segment_.valid + kRanks - 1) / kRanks;
        int64_t before = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
            before += std::exchange(scratch_.chunks[chunk].members, before);
        parallel_for(segment_.valid, kRanks, segment_.threads, [&](int64_t begin, int64_t end, int) {
            RankChunk& chunk = scratch_.chunks[begin / kRanks];
            chunk.loss = body(chunk, begin, end, ranked);
        });
        if (buffers_.gradient != nullptr) clear_ignored(ranked);
        double loss = 0.0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) loss += scratch_.chunks[chunk].loss;
        return loss;
    }

    void clear_ignored(const uint64_t* ranked) const {
        for (int64_t rank = segment_.valid; rank < segment_.size(); ++rank) {
            float* pixel = buffers_.gradient + (ranked[rank] & kPosition);
            for (int64_t channel = 0; channel < channels_; ++channel) pixel[channel * inputs_.channel_stride()] = 0.0F;
        }
    }

    double weigh_two(const RankChunk& chunk, int64_t begin, int64_t end, const uint64_t* ranked) const {
        int64_t members = chunk.members;
        double loss = 0.0;
        for (int64_t rank = begin; rank < end; rank += kBlock) {
            const int64_t count = std::min(end - rank, kBlock);
            loss += weigh_block_of_two(ranked + rank, count, members, rank - members);
            for (int64_t i = rank; i < rank + count; ++i) members += (ranked[i] & kMember) != 0 ? 1 : 0;
        }
        return loss;
    }

    // Loops without branches, because labels in the order of ranks are as good as random.
    double weigh_block_of_two(const uint64_t* ranked, int64_t count, int64_t ones_before, int64_t zeros_before) const {
        std::array<double, kBlock> slopes;
        LabelBlock labels;
        LabelBlock ones;  // ranked before, within the block
        FloatBlock errors;
        std::int32_t found = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            labels[i] = (ranked[i] & kMember) != 0 ? 1 : 0;
            errors[i] = error_of(static_cast<std::uint32_t>(ranked[i] >> kSortKeyShift));
            ones[i] = found;
            found += labels[i];
        }
        const ClassOfTwo zero = class_of_two(0, zeros_before);
        const ClassOfTwo one = class_of_two(1, ones_before);
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            const double ones_here = one.before + ones[i];
            const double zeros_here = zero.before + (static_cast<std::int32_t>(i) - ones[i]);
            const bool is_one = labels[i] != 0;
            const ClassOfTwo own{is_one ? one.weight : zero.weight, is_one ? one.total : zero.total,
                                 is_one ? ones_here : zeros_here};
            const ClassOfTwo other{is_one ? zero.weight : one.weight, is_one ? zero.total : one.total,
                                   is_one ? zeros_here : ones_here};
            slopes[i] = slope_of_two(own, other);
        }
        double loss = 0.0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
            loss += slopes[i] * static_cast<double>(errors[i]);
        if (buffers_.gradient == nullptr) return loss;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            const float change = static_cast<float>(slopes[i]) * (errors[i] * (1.0F - errors[i]));
            errors[i] = labels[i] != 0 ? change : -change;
        }
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            buffers_.gradient[ranked[i] & kPosition] = errors[i];
        }
        return loss;
    }

    // The gradient of class 1 is that of class 0 with the other sign; in memory order this costs less than by rank.
    void mirror_gradient() const {
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            const float* first = buffers_.gradient + inputs_.offset(block);
            float* second = buffers_.gradient + inputs_.offset(block) + inputs_.channel_stride();
            const int64_t stride = inputs_.pixel_stride();
            for (int64_t i = 0; i < block.count; ++i) second[i * stride] = -first[i * stride];
        });
    }

    ClassOfTwo class_of_two(int64_t channel, int64_t before) const {
        const ClassShare& share = segment_.shares[channel];
        return {share.weight, static_cast<double>(share.total), static_cast<double>(before)};
    }

    // Leaves d(channel) in the gradient.
    double weigh_class(int64_t channel, const RankChunk& chunk, int64_t begin, int64_t end,
                       const uint64_t* ranked) const {
        const ClassShare& share = segment_.shares[channel];
        const auto total = static_cast<double>(share.total);
        double foreground = static_cast<double>(chunk.members);
        double background = static_cast<double>(begin - chunk.members);
        double loss = 0.0;
        for (int64_t rank = begin; rank < end; ++rank) {
            const uint64_t word = ranked[rank];
            const bool member = (word & kMember) != 0;
            const double weight = share.weight * (member ? foreground_weight(total, background)
                                                         : background_weight(total, foreground, background));
            (member ? foreground : background) += 1.0;
            loss += weight * static_cast<double>(error_of(static_cast<std::uint32_t>(word >> kSortKeyShift)));
            if (buffers_.gradient == nullptr) continue;
            // position < N C P - (C - 1) channel strides: the class's element is inside the gradient.
            buffers_.gradient[static_cast<int64_t>(word & kPosition) + channel * inputs_.channel_stride()] =
                static_cast<float>(member ? -weight : weight);
        }
        return loss;
    }

    void chain_through_softmax() const {
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            FloatBlock mean;
            mean.fill(0.0F);
            const auto count = static_cast<std::size_t>(block.count);
            const int64_t stride = inputs_.pixel_stride();
            const float* row = probabilities(block);
            float* slopes = buffers_.gradient + inputs_.offset(block);
            for (int64_t channel = 0; channel < channels_; ++channel) {
                if (segment_.shares[channel].weight == 0.0) continue;
                const float* p = row + channel * segment_.pixels;
                const float* d = slopes + channel * inputs_.channel_stride();
                for (std::size_t i = 0; i < count; ++i) mean[i] += p[i] * d[static_cast<int64_t>(i) * stride];
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const bool counted = segment_.shares[channel].weight > 0.0;
                const float* p = row + channel * segment_.pixels;
                float* d = slopes + channel * inputs_.channel_stride();
                for (std::size_t i = 0; i < count; ++i) {
                    float& value = d[static_cast<int64_t>(i) * stride];
                    value = p[i] * ((counted ? value : 0.0F) - mean[i]);
                }
            }
        });
    }

    const LovaszInputs& inputs_;
    const Segment& segment_;
    int64_t channels_;
    const LovaszBuffers& buffers_;
    const SortScratch& scratch_;
};

}  // namespace

double lovasz_by_sorting(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels,
                         const LovaszBuffers& buffers, const SortScratch& scratch) {
    const SortedSegment sorted(inputs, segment, channels, buffers, scratch);
    return channels == 2 ? sorted.run_two() : sorted.run_many();
}

}  // namespace etnet
