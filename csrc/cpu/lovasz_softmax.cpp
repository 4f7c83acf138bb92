// CPU version of etnet/ops/lovasz_softmax.hpp: checks, memory, counts of the classes, then one method per segment.
#include "etnet/ops/lovasz_softmax.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "etnet/error.hpp"
#include "etnet/lovasz_check.hpp"
#include "huge_pages.hpp"
#include "lovasz_methods.hpp"

namespace etnet {
namespace {

using std::int64_t;

constexpr int64_t kAlignment = 64;
constexpr int64_t kPixelsPerThread = 16384;  // below this a second thread costs more than it brings

struct StripeCount {
    int64_t valid;
    int64_t invalid_pixel;  // first pixel whose target is neither a class nor ignored; -1: none
};

struct Workspace {
    float* probabilities;  // [N, C, P]
    int64_t* class_count;  // [N, stripes, C] pixels of each class
    StripeCount* stripe;   // [N, stripes]
    ClassShare* shares;    // [segments, C]
    double* loss;          // [segments]
    SortScratch sort;      // of the first worker; the others' follow at the strides below
    HistogramScratch bins;
    int64_t bytes;
};

class Layout {
  public:
    explicit Layout(void* base) : base_(static_cast<std::byte*>(base)) {}

    template <class T>
    T* take(int64_t count) {
        T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
        used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
        return result;
    }
    int64_t used() const { return used_; }

  private:
    std::byte* base_;
    int64_t used_ = 0;
};

// How the work is split: segments are done in parallel where there are several, and a lone one by all threads.
struct Plan {
    explicit Plan(const LovaszSoftmaxSizes& sizes)
        : pixels(sizes.height * sizes.width),
          segments(sizes.per_image ? sizes.images : 1),
          images(sizes.per_image ? 1 : sizes.images),
          tables(sizes.channels == 2 ? 1 : sizes.channels) {
        const int64_t useful = 1 + sizes.images * pixels / kPixelsPerThread;
        const int64_t threads = std::min<int64_t>(sizes.threads, useful);
        workers = std::max<int64_t>(1, std::min(threads, segments));
        threads_per_segment = segments > 1 ? 1 : threads;
        stripes = std::max<int64_t>(1, (threads + sizes.images - 1) / std::max<int64_t>(1, sizes.images));
        chunks = (images * pixels + kRanks - 1) / kRanks;
    }
    int64_t pixels;  // of one image
    int64_t segments;
    int64_t images;   // of one segment
    int64_t tables;   // histograms of a segment
    int64_t workers;  // segments in work at a time
    int64_t threads_per_segment;
    int64_t stripes;  // parts of an image that are counted in parallel
    int64_t chunks;   // of ranks in a segment
};

bool needs_probabilities(const LovaszSoftmaxSizes& sizes) {
    return sizes.channels != 2 && sizes.method == LovaszMethod::sort;
}

// With two classes the words to be sorted, 8 bytes per pixel, have just room in the gradient, which is written later.
bool sorts_in_gradient(const LovaszSoftmaxSizes& sizes) {
    return sizes.channels == 2 && sizes.with_gradient;
}

Workspace lay_out(void* memory, const LovaszSoftmaxSizes& sizes) {
    const Plan plan(sizes);
    Layout layout(memory);
    Workspace workspace{};
    if (needs_probabilities(sizes)) {
        workspace.probabilities = layout.take<float>(sizes.images * sizes.channels * plan.pixels);
    }
    workspace.class_count = layout.take<int64_t>(sizes.images * plan.stripes * sizes.channels);
    workspace.stripe = layout.take<StripeCount>(sizes.images * plan.stripes);
    workspace.shares = layout.take<ClassShare>(plan.segments * sizes.channels);
    workspace.loss = layout.take<double>(plan.segments);
    if (sizes.method == LovaszMethod::sort) {
        const int64_t room = plan.workers * plan.images * plan.pixels;
        if (!sorts_in_gradient(sizes)) workspace.sort.words = layout.take<std::uint64_t>(room);
        workspace.sort.ordered = layout.take<std::uint64_t>(room);
        workspace.sort.counts = layout.take<SortCounts>(plan.workers * plan.threads_per_segment);
        workspace.sort.chunks = layout.take<RankChunk>(plan.workers * plan.chunks);
    } else {
        const int64_t threads = plan.workers * plan.threads_per_segment;
        workspace.bins.counts = layout.take<std::uint32_t>(threads * plan.tables * (2 * sizes.bins + kIgnoredPlaces));
        if (sizes.channels != 2) workspace.bins.rows = layout.take<float>(threads * 2 * sizes.channels * kBlock);
    }
    workspace.bytes = layout.used();
    return workspace;
}

class Loss {
  public:
    explicit Loss(const LovaszSoftmaxArguments& arguments)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          plan_(sizes_),
          channels_(sizes_.channels),
          inputs_(arguments),
          workspace_(lay_out(arguments.workspace, sizes_)) {
        const bool sorts = sizes_.method == LovaszMethod::sort;
        buffers_.gradient = sorts && sizes_.with_gradient ? arguments.gradient : nullptr;
        buffers_.probabilities = workspace_.probabilities;
    }

    double run() {
        prefer_huge_pages(arguments_.workspace, workspace_.bytes);
        if (buffers_.gradient != nullptr) prefer_huge_pages(buffers_.gradient, gradient_bytes());
        count_classes();
        share_out();
        parallel_for(plan_.segments, 1, static_cast<int>(plan_.workers), [&](int64_t segment, int64_t, int worker) {
            workspace_.loss[segment] = run_segment(segment, worker);
        });
        double loss = 0.0;
        for (int64_t segment = 0; segment < plan_.segments; ++segment) loss += workspace_.loss[segment];
        if (std::isnan(loss)) spread_nan();
        return loss;
    }

    void look_up() const {
        prefer_huge_pages(arguments_.gradient, gradient_bytes());
        parallel_for(plan_.segments, 1, static_cast<int>(plan_.workers), [&](int64_t index, int64_t, int worker) {
            const int64_t threads = plan_.threads_per_segment;
            const LookUp look_up{arguments_.weights + index * weights_of_segment(), *arguments_.scale,
                                 workspace_.bins.rows + 2 * worker * threads * channels_ * kBlock, arguments_.gradient};
            look_up_lovasz(inputs_, segment_at(index), channels_, sizes_.bins, look_up);
        });
    }

  private:
    void count_classes() {
        const int64_t blocks = (plan_.pixels + kBlock - 1) / kBlock;
        const int64_t stripe_blocks = (blocks + plan_.stripes - 1) / plan_.stripes;
        parallel_for(sizes_.images * plan_.stripes, 1, sizes_.threads, [&](int64_t item, int64_t, int) {
            const int64_t begin = std::min(blocks, item % plan_.stripes * stripe_blocks);
            count_blocks(item / plan_.stripes, begin, std::min(blocks, begin + stripe_blocks),
                         workspace_.class_count + item * channels_, workspace_.stripe[item]);
        });
        for (int64_t item = 0; item < sizes_.images * plan_.stripes; ++item) {
            const int64_t pixel = workspace_.stripe[item].invalid_pixel;
            if (pixel >= 0) fail_on_target(item / plan_.stripes, pixel);
        }
    }

    // Counts blocks begin..end-1 of an image, up to the first that holds an invalid target.
    void count_blocks(int64_t image, int64_t begin, int64_t end, int64_t* count, StripeCount& total) const {
        std::fill_n(count, channels_, int64_t{0});
        total = {0, -1};
        LabelBlock labels;
        for (int64_t i = begin; i < end; ++i) {
            const PixelBlock block{image, i * kBlock, std::min(plan_.pixels - i * kBlock, kBlock)};
            inputs_.labels(block, labels);
            std::int32_t invalid = 0;
            for (std::size_t at = 0; at < static_cast<std::size_t>(block.count); ++at) {
                invalid |= labels[at] == kInvalidLabel ? 1 : 0;
            }
            if (invalid != 0) {
                total.invalid_pixel =
                    block.first + (std::find(labels.begin(), labels.end(), kInvalidLabel) - labels.begin());
                return;
            }
            count_labels(labels, block.count, count);
        }
        for (int64_t channel = 0; channel < channels_; ++channel) total.valid += count[channel];
    }

    void count_labels(const LabelBlock& labels, int64_t size, int64_t* count) const {
        constexpr int64_t kFewClasses = 8;  // for these, comparing all labels with each is faster: it is vector code
        if (channels_ > kFewClasses) {
            for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
                if (labels[i] >= 0) ++count[labels[i]];
            }
            return;
        }
        for (std::int32_t channel = 0; channel < static_cast<std::int32_t>(channels_); ++channel) {
            std::int32_t found = 0;
            for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) found += labels[i] == channel ? 1 : 0;
            count[channel] += found;
        }
    }

    [[noreturn]] void fail_on_target(int64_t image, int64_t pixel) const {
        std::ostringstream ignore;
        if (arguments_.has_ignore_index) ignore << " or the ignore_index " << arguments_.ignore_index;
        fail("target holds the value ", inputs_.target(image, pixel), " at [image ", image, ", row ",
             pixel / sizes_.width, ", column ", pixel % sizes_.width, "]; expected a class index in 0..", channels_ - 1,
             ignore.str());
    }

    // Total and weight of every (segment, class); the weights of all classes of all segments add up to 1.
    void share_out() {
        int64_t counted_segments = 0;
        for (int64_t segment = 0; segment < plan_.segments; ++segment) {
            counted_segments += valid_pixels(segment) > 0 ? 1 : 0;
        }
        for (int64_t segment = 0; segment < plan_.segments; ++segment) {
            ClassShare* shares = workspace_.shares + segment * channels_;
            int64_t counted = 0;
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const int64_t total = segment_sum(
                    segment, [&](int64_t item) { return workspace_.class_count[item * channels_ + channel]; });
                const bool counts = valid_pixels(segment) > 0 && is_counted(channel, total);
                shares[channel] = {total, counts ? 1.0 : 0.0};
                counted += counts ? 1 : 0;
            }
            for (int64_t channel = 0; channel < channels_ && counted > 0; ++channel) {
                shares[channel].weight /= static_cast<double>(counted) * static_cast<double>(counted_segments);
            }
        }
    }

    bool is_counted(int64_t channel, int64_t total) const {
        if (arguments_.classes == LovaszClasses::present) return total > 0;
        const int64_t* end = arguments_.listed + arguments_.listed_count;
        return arguments_.classes == LovaszClasses::all || std::find(arguments_.listed, end, channel) != end;
    }

    int64_t valid_pixels(int64_t segment) const {
        return segment_sum(segment, [&](int64_t item) { return workspace_.stripe[item].valid; });
    }

    template <class Count>
    int64_t segment_sum(int64_t segment, const Count& count) const {
        const int64_t items = plan_.images * plan_.stripes;
        int64_t sum = 0;
        for (int64_t item = segment * items; item < (segment + 1) * items; ++item) sum += count(item);
        return sum;
    }

    int64_t logits() const { return sizes_.images * channels_ * plan_.pixels; }
    int64_t gradient_bytes() const { return logits() * static_cast<int64_t>(sizeof(float)); }
    int64_t weights_of_segment() const { return plan_.tables * 2 * sizes_.bins; }

    void spread_nan() const {
        if (buffers_.gradient != nullptr) std::fill_n(buffers_.gradient, logits(), kNan);
        if (sizes_.method == LovaszMethod::histogram) {
            std::fill_n(arguments_.weights, plan_.segments * weights_of_segment(), kNan);
        }
    }

    Segment segment_at(int64_t index) const {
        return {index * plan_.images,
                plan_.images,
                plan_.pixels,
                0,
                workspace_.shares + index * channels_,
                static_cast<int>(plan_.threads_per_segment)};
    }

    double run_segment(int64_t index, int worker) const {
        Segment segment = segment_at(index);
        segment.valid = valid_pixels(index);
        return sizes_.method == LovaszMethod::sort ? sort_segment(segment, worker)
                                                   : count_segment(segment, index, worker);
    }

    double sort_segment(const Segment& segment, int worker) const {
        float* gradient = nullptr;
        if (buffers_.gradient != nullptr) gradient = buffers_.gradient + segment.first_image * channels_ * plan_.pixels;
        if (segment.valid == 0) {
            if (gradient != nullptr) std::fill_n(gradient, segment.size() * channels_, 0.0F);
            return 0.0;
        }
        SortScratch scratch = workspace_.sort;
        scratch.words = sorts_in_gradient(sizes_) ? reinterpret_cast<std::uint64_t*>(gradient)
                                                  : scratch.words + worker * segment.size();
        scratch.ordered += worker * segment.size();
        scratch.counts += worker * plan_.threads_per_segment;
        scratch.chunks += worker * plan_.chunks;
        return lovasz_by_sorting(inputs_, segment, channels_, buffers_, scratch);
    }

    double count_segment(const Segment& segment, int64_t index, int worker) const {
        HistogramScratch scratch = workspace_.bins;
        scratch.counts += worker * plan_.threads_per_segment * plan_.tables * (2 * sizes_.bins + kIgnoredPlaces);
        scratch.rows += 2 * worker * plan_.threads_per_segment * channels_ * kBlock;
        scratch.weights = arguments_.weights + index * weights_of_segment();
        return lovasz_by_histogram(inputs_, segment, channels_, sizes_.bins, scratch);
    }

    const LovaszSoftmaxArguments& arguments_;
    const LovaszSoftmaxSizes& sizes_;
    Plan plan_;
    int64_t channels_;
    LovaszInputs inputs_;
    Workspace workspace_;
    LovaszBuffers buffers_;
};

}  // namespace

std::int64_t lovasz_softmax_workspace_bytes(const LovaszSoftmaxSizes& sizes) {
    check_sizes(sizes);
    return lay_out(nullptr, sizes).bytes;
}

double lovasz_softmax(const LovaszSoftmaxArguments& arguments) {
    check_arguments(arguments, lovasz_softmax_workspace_bytes(arguments.sizes));
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    if (sizes.images * sizes.height * sizes.width == 0) return 0.0;
    return Loss(arguments).run();
}

void lovasz_softmax_look_up(const LovaszSoftmaxArguments& arguments) {
    check_look_up(arguments, lovasz_softmax_workspace_bytes(arguments.sizes));
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    if (sizes.images * sizes.height * sizes.width > 0) Loss(arguments).look_up();
}

}  // namespace etnet
