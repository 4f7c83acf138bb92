// LovaszMethod::histogram on the CPU: count errors per bin, weigh the bins, look the weight of each pixel up.
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "etnet/lovasz_formula.hpp"
#include "lovasz_methods.hpp"

namespace etnet {
namespace {

using std::int64_t;
using std::uint32_t;

// The bins of one class, from the highest error down: calls body(bin index, pixels of the two kinds, their weights).
template <class Body>
void weigh_bins(const ClassShare& share, const uint32_t* foreground, const uint32_t* background, int64_t bins,
                const Body& body) {
    Bin bin{static_cast<double>(share.total), 0.0, 0.0, 0.0, 0.0};
    for (int64_t i = bins - 1; i >= 0; --i) {
        if (foreground[i] == 0 && background[i] == 0) continue;
        bin.foreground = static_cast<double>(foreground[i]);
        bin.background = static_cast<double>(background[i]);
        body(i, bin.foreground > 0.0 ? share.weight * bin_foreground_weight(bin) : 0.0,
             bin.background > 0.0 ? share.weight * bin_background_weight(bin) : 0.0);
        bin.foreground_before += bin.foreground;
        bin.background_before += bin.background;
    }
}

// Calls body(i) for 0..count-1 and asks for the memory of what comes next.
template <class Body>
void for_each_step(int64_t count, const ReadAhead& ahead, const Body& body) {
    int64_t i = 0;
    for (; i + ReadAhead::kStep <= count; i += ReadAhead::kStep) {
        ahead.ask(i / ReadAhead::kStep);
        for (int64_t at = i; at < i + ReadAhead::kStep; ++at) body(at);
    }
    for (; i < count; ++i) body(i);
}

class BinnedSegment {
  public:
    BinnedSegment(const LovaszInputs& inputs, const Segment& segment, int64_t channels, int64_t bins,
                  const HistogramScratch& scratch)
        : inputs_(inputs),
          segment_(segment),
          channels_(channels),
          bins_(bins),
          last_bin_(static_cast<float>(bins - 1)),
          scratch_(scratch) {}

    double run_two() const {
        clear_counts(1);
        std::atomic<bool> fine{true};
        for_each_block(segment_, [&](const PixelBlock& block, int worker) {
            LabelBlock labels;
            LabelBlock places;
            FloatBlock room[2];
            inputs_.labels(block, labels);
            const ScoresOfTwo scores = scores_of_two(inputs_, block, room);
            if (!place_two(scores, labels.data(), static_cast<std::int32_t>(bins_), places.data())) {
                fine = false;
                return;
            }
            count(block, places, inputs_.after(block), counts_of(worker, 1));
        });
        if (!fine) return kNan;
        sum_counts(1);
        return weigh_two();
    }

    double run_many() const {
        clear_counts(channels_);
        std::atomic<bool> fine{true};
        for_each_block(segment_, [&](const PixelBlock& block, int worker) {
            LabelBlock labels;
            LabelBlock places;
            float* rows = scratch_.rows + 2 * worker * channels_ * kBlock;
            inputs_.labels(block, labels);
            if (!softmax_of_block(inputs_, block, labels, channels_, rows, kBlock)) {
                fine = false;
                return;
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                if (segment_.shares[channel].weight == 0.0) continue;
                const auto bins = static_cast<std::int32_t>(bins_);
                place_errors(rows + channel * kBlock, labels.data(), static_cast<std::int32_t>(channel), block.count,
                             bins, 2 * bins, places.data());
                count(block, places, inputs_.after(block, channel),
                      counts_of(worker, channels_) + channel * table_size());
            }
        });
        if (!fine) return kNan;
        sum_counts(channels_);
        double loss = 0.0;
        for (int64_t channel = 0; channel < channels_; ++channel) loss += weigh_class(channel);
        return loss;
    }

  private:
    uint32_t* counts_of(int worker, int64_t tables) const { return scratch_.counts + worker * tables * table_size(); }
    int64_t table_size() const { return 2 * bins_ + kIgnoredPlaces; }

    void clear_counts(int64_t tables) const {
        std::fill_n(scratch_.counts, segment_.threads * tables * table_size(), uint32_t{0});
    }

    // The first worker's table gets the sum; fewer than 2^32 pixels in a segment keep it in range.
    void sum_counts(int64_t tables) const {
        for (int worker = 1; worker < segment_.threads; ++worker) {
            const uint32_t* counts = counts_of(worker, tables);
            for (int64_t i = 0; i < tables * table_size(); ++i) scratch_.counts[i] += counts[i];
        }
    }

    static void count(const PixelBlock& block, const LabelBlock& places, const ReadAhead& ahead, uint32_t* counts) {
        for_each_step(block.count, ahead, [&](int64_t i) { ++counts[places[static_cast<std::size_t>(i)]]; });
    }

    // weights[label, bin] becomes the slope of etnet/lovasz_formula.hpp.
    double weigh_two() const {
        std::fill_n(scratch_.weights, 2 * bins_, 0.0F);
        double loss = 0.0;
        for (int64_t channel = 0; channel < 2; ++channel) {
            if (segment_.shares[channel].weight == 0.0) continue;
            loss += weigh(channel, scratch_.counts + channel * bins_, scratch_.counts + (1 - channel) * bins_,
                          scratch_.weights + channel * bins_, scratch_.weights + (1 - channel) * bins_);
        }
        return loss;
    }

    double weigh_class(int64_t channel) const {
        const uint32_t* counts = scratch_.counts + channel * table_size();
        float* weights = scratch_.weights + channel * 2 * bins_;
        std::fill_n(weights, 2 * bins_, 0.0F);
        if (segment_.shares[channel].weight == 0.0) return 0.0;
        return weigh(channel, counts + bins_, counts, weights + bins_, weights);
    }

    // Adds the weights of a class to the tables of its foreground and its background and returns its loss.
    double weigh(int64_t channel, const uint32_t* foreground, const uint32_t* background, float* foreground_weights,
                 float* background_weights) const {
        double loss = 0.0;
        weigh_bins(segment_.shares[channel], foreground, background, bins_,
                   [&](int64_t i, double foreground_weight, double background_weight) {
                       foreground_weights[i] += static_cast<float>(foreground_weight);
                       background_weights[i] += static_cast<float>(background_weight);
                       loss += static_cast<double>(i) / static_cast<double>(bins_ - 1) *
                               (foreground[i] * foreground_weight + background[i] * background_weight);
                   });
        return loss;
    }

    const LovaszInputs& inputs_;
    const Segment& segment_;
    int64_t channels_;
    int64_t bins_;
    float last_bin_;
    const HistogramScratch& scratch_;
};

// The gradient of a segment from its tables of weights.
class LookedUpSegment {
  public:
    LookedUpSegment(const LovaszInputs& inputs, const Segment& segment, int64_t channels, int64_t bins,
                    const LookUp& look_up)
        : inputs_(inputs),
          segment_(segment),
          channels_(channels),
          bins_(static_cast<std::int32_t>(bins)),
          last_bin_(static_cast<float>(bins - 1)),
          look_up_(look_up) {}

    void run_two() const {
        for_each_block(segment_, [&](const PixelBlock& block, int) {
            LabelBlock labels;
            LabelBlock places;
            FloatBlock changes;
            FloatBlock room[2];
            inputs_.labels(block, labels);
            const ScoresOfTwo scores = scores_of_two(inputs_, block, room);
            change_two(scores, labels.data(), bins_, look_up_.scale, changes.data(), places.data());
            write_two(block, changes, places);
        });
    }

    void run_many() const {
        for_each_block(segment_, [&](const PixelBlock& block, int worker) {
            LabelBlock labels;
            FloatBlock mean;
            float* rows = look_up_.rows + 2 * worker * channels_ * kBlock;
            float* slopes = rows + channels_ * kBlock;
            inputs_.labels(block, labels);
            softmax_of_block(inputs_, block, labels, channels_, rows, kBlock);
            mean.fill(0.0F);
            const auto count = static_cast<std::size_t>(block.count);
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const float* p = rows + channel * kBlock;
                float* d = slopes + channel * kBlock;
                find_slopes(p, block, labels, channel, d);
                for (std::size_t i = 0; i < count; ++i) mean[i] += p[i] * d[i];
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const float* p = rows + channel * kBlock;
                const float* d = slopes + channel * kBlock;
                float* out = look_up_.gradient + inputs_.offset(block) + channel * inputs_.channel_stride();
                for (std::size_t i = 0; i < count; ++i) {
                    out[static_cast<int64_t>(i) * inputs_.pixel_stride()] = p[i] * (d[i] - mean[i]);
                }
            }
        });
    }

  private:
    // The gradient of class 0 is changes * weights, that of class 1 its negative.
    void write_two(const PixelBlock& block, const FloatBlock& changes, const LabelBlock& places) const {
        float* first = look_up_.gradient + inputs_.offset(block);
        float* second = first + inputs_.channel_stride();
        const int64_t stride = inputs_.pixel_stride();
        for_each_step(block.count, inputs_.after(block), [&](int64_t i) {
            const auto at = static_cast<std::size_t>(i);
            const float value = changes[at] * look_up_.weights[places[at]];
            first[i * stride] = value;
            second[i * stride] = -value;
        });
    }

    // d(channel) of a block, times the scale, from the probabilities of the class.
    void find_slopes(const float* row, const PixelBlock& block, const LabelBlock& labels, int64_t channel,
                     float* slopes) const {
        LabelBlock places;
        const auto member = static_cast<std::int32_t>(channel);
        // Ignored pixels have the probability 0, so that any weight will do.
        place_errors(row, labels.data(), member, block.count, bins_, 0, places.data());
        const float* weights = look_up_.weights + channel * 2 * bins_;
        for_each_step(block.count, inputs_.after(block, channel),
                      [&](int64_t i) { slopes[i] = weights[places[static_cast<std::size_t>(i)]]; });
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
            slopes[i] *= labels[i] == member ? -look_up_.scale : look_up_.scale;
        }
    }

    const LovaszInputs& inputs_;
    const Segment& segment_;
    int64_t channels_;
    std::int32_t bins_;
    float last_bin_;
    const LookUp& look_up_;
};

}  // namespace

double lovasz_by_histogram(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels, std::int64_t bins,
                           const HistogramScratch& scratch) {
    const BinnedSegment binned(inputs, segment, channels, bins, scratch);
    return channels == 2 ? binned.run_two() : binned.run_many();
}

void look_up_lovasz(const LovaszInputs& inputs, const Segment& segment, std::int64_t channels, std::int64_t bins,
                    const LookUp& look_up) {
    const LookedUpSegment looked_up(inputs, segment, channels, bins, look_up);
    if (channels == 2) {
        looked_up.run_two();
    } else {
        looked_up.run_many();
    }
}

}  // namespace etnet
