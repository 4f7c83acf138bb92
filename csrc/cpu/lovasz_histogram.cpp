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

// Errors of a block for one class, from the probabilities in row `channel` of `rows`.
void find_errors(const float* rows, const PixelBlock& block, const LabelBlock& labels, int64_t channel,
                 FloatBlock& errors) {
    const float* row = rows + channel * kBlock;
    for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
        errors[i] = labels[i] == static_cast<std::int32_t>(channel) ? 1.0F - row[i] : row[i];
    }
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
            FloatBlock errors;
            inputs_.labels(block, labels);
            if (!errors_of_two(inputs_, block, labels, errors)) {
                fine = false;
                return;
            }
            count(block, labels, 1, errors.data(), counts_of(worker, 1));
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
            FloatBlock errors;
            float* rows = scratch_.rows + worker * channels_ * kBlock;
            inputs_.labels(block, labels);
            if (!softmax_of_block(inputs_, block, labels, channels_, rows, kBlock)) {
                fine = false;
                return;
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                if (segment_.shares[channel].weight == 0.0) continue;
                find_errors(rows, block, labels, channel, errors);
                count(block, labels, static_cast<std::int32_t>(channel), errors.data(),
                      counts_of(worker, channels_) + channel * 2 * bins_);
            }
        });
        if (!fine) return kNan;
        sum_counts(channels_);
        double loss = 0.0;
        for (int64_t channel = 0; channel < channels_; ++channel) loss += weigh_class(channel);
        return loss;
    }

  private:
    uint32_t* counts_of(int worker, int64_t tables) const { return scratch_.counts + worker * tables * 2 * bins_; }

    void clear_counts(int64_t tables) const {
        std::fill_n(scratch_.counts, segment_.threads * tables * 2 * bins_, uint32_t{0});
    }

    // The first worker's table gets the sum; fewer than 2^32 pixels in a segment keep it in range.
    void sum_counts(int64_t tables) const {
        for (int worker = 1; worker < segment_.threads; ++worker) {
            const uint32_t* counts = counts_of(worker, tables);
            for (int64_t i = 0; i < tables * 2 * bins_; ++i) scratch_.counts[i] += counts[i];
        }
    }

    // counts[0, bins] of the pixels that are no members, [1, bins] of those that are.
    void count(const PixelBlock& block, const LabelBlock& labels, std::int32_t member, const float* errors,
               uint32_t* counts) const {
        LabelBlock places;
        const auto bins = static_cast<std::int32_t>(bins_);
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
            // Errors lie in 0..1, so that the bin lies in 0..bins-1.
            places[i] = bin_of(errors[i], last_bin_) + (labels[i] == member ? bins : 0);
        }
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
            if (labels[i] >= 0) ++counts[places[i]];
        }
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
        const uint32_t* counts = scratch_.counts + channel * 2 * bins_;
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
            FloatBlock errors;
            inputs_.labels(block, labels);
            errors_of_two(inputs_, block, labels, errors);
            find_changes(block, labels, errors);
            float* first = look_up_.gradient + inputs_.offset(block);
            float* second = first + inputs_.channel_stride();
            const int64_t stride = inputs_.pixel_stride();
            for (int64_t i = 0; i < block.count; ++i) first[i * stride] = errors[static_cast<std::size_t>(i)];
            for (int64_t i = 0; i < block.count; ++i) second[i * stride] = -errors[static_cast<std::size_t>(i)];
        });
    }

    void run_many() const {
        for_each_block(segment_, [&](const PixelBlock& block, int worker) {
            LabelBlock labels;
            FloatBlock slopes;
            FloatBlock mean;
            float* rows = look_up_.rows + worker * channels_ * kBlock;
            inputs_.labels(block, labels);
            softmax_of_block(inputs_, block, labels, channels_, rows, kBlock);
            mean.fill(0.0F);
            const auto count = static_cast<std::size_t>(block.count);
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const float* p = rows + channel * kBlock;
                find_slopes(rows, block, labels, channel, slopes);
                for (std::size_t i = 0; i < count; ++i) mean[i] += p[i] * slopes[i];
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const float* p = rows + channel * kBlock;
                float* out = look_up_.gradient + inputs_.offset(block) + channel * inputs_.channel_stride();
                find_slopes(rows, block, labels, channel, slopes);
                for (std::size_t i = 0; i < count; ++i) {
                    out[static_cast<int64_t>(i) * inputs_.pixel_stride()] = p[i] * (slopes[i] - mean[i]);
                }
            }
        });
    }

  private:
    // Turns errors into the gradient of class 0. Ignored pixels have the error 0 and hence no change.
    void find_changes(const PixelBlock& block, const LabelBlock& labels, FloatBlock& errors) const {
        LabelBlock places;
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
            const float error = errors[i];
            const float change = look_up_.scale * (error * (1.0F - error));
            places[i] = bin_of(error, last_bin_) + (labels[i] == 1 ? bins_ : 0);
            errors[i] = labels[i] == 1 ? change : -change;
        }
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i)
            errors[i] *= look_up_.weights[places[i]];
    }

    // d(channel) of a block, times the scale.
    void find_slopes(const float* rows, const PixelBlock& block, const LabelBlock& labels, int64_t channel,
                     FloatBlock& slopes) const {
        const float* weights = look_up_.weights + channel * 2 * bins_;
        find_errors(rows, block, labels, channel, slopes);
        for (std::size_t i = 0; i < static_cast<std::size_t>(block.count); ++i) {
            const bool member = labels[i] == static_cast<std::int32_t>(channel);
            const float weight = look_up_.scale * weights[bin_of(slopes[i], last_bin_) + (member ? bins_ : 0)];
            slopes[i] = member ? -weight : weight;
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
