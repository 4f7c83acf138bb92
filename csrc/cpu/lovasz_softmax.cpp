// CPU version of etnet/ops/lovasz_softmax.hpp, in five steps: count classes, softmax, list the (segment, class) tasks,
// rank and weigh each task's pixels, chain the weights through softmax.
#include "etnet/ops/lovasz_softmax.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "etnet/error.hpp"
#include "etnet/parallel.hpp"
#include "radix_sort.hpp"

namespace etnet {
namespace {

using std::int64_t;
using std::uint64_t;

// A pixel to be ranked is one word: 30 bits of key, 1 foreground bit, 33 bits of position in the logits of class 0.
// The key is the float32 error's bit pattern, subtracted from that of 1.0: patterns of numbers >= 0 rise with the
// number, so rising keys are falling errors, and errors in 0..1 need the 30 bits of 0..0x3F800000.
constexpr std::uint32_t kOneBits = 0x3F800000U;
constexpr int kPositionBits = kSortKeyShift - 1;
constexpr uint64_t kForeground = uint64_t{1} << kPositionBits;
constexpr int64_t kMaximalLogits = int64_t{1} << kPositionBits;

constexpr int64_t kBlock = 1024;  // pixels whose per-pixel numbers stay in the first-level cache
constexpr int64_t kAlignment = 64;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Task {
    int64_t segment;
    int64_t channel;
    int64_t foreground;  // G
    double weight;       // 1 / (counted classes of the segment) / (counted segments)
    double loss;
};

struct ImageCount {
    int64_t valid;
    int64_t invalid_pixel;  // first pixel whose target is neither a class nor ignored; -1: none
};

struct Workspace {
    float* probabilities;  // [N, C, P]
    int64_t* class_count;  // [N, C] pixels of each class
    ImageCount* image;     // [N]
    Task* tasks;           // [segments * C]
    uint64_t* sort;        // [workers, 2, pixels of a segment]
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

int64_t pixels_of(const LovaszSoftmaxSizes& sizes) {
    return sizes.height * sizes.width;
}
int64_t segments_of(const LovaszSoftmaxSizes& sizes) {
    return sizes.per_image ? sizes.images : 1;
}
int64_t images_per_segment(const LovaszSoftmaxSizes& sizes) {
    return sizes.per_image ? 1 : sizes.images;
}
int64_t workers_of(const LovaszSoftmaxSizes& sizes) {
    return std::min<int64_t>(sizes.threads, segments_of(sizes) * sizes.channels);
}

Workspace lay_out(void* memory, const LovaszSoftmaxSizes& sizes) {
    Layout layout(memory);
    Workspace workspace{};
    workspace.probabilities = layout.take<float>(sizes.images * sizes.channels * pixels_of(sizes));
    workspace.class_count = layout.take<int64_t>(sizes.images * sizes.channels);
    workspace.image = layout.take<ImageCount>(sizes.images);
    workspace.tasks = layout.take<Task>(segments_of(sizes) * sizes.channels);
    workspace.sort = layout.take<uint64_t>(workers_of(sizes) * 2 * images_per_segment(sizes) * pixels_of(sizes));
    workspace.bytes = layout.used();
    return workspace;
}

void check_sizes(const LovaszSoftmaxSizes& sizes) {
    require(sizes.channels >= 1, "lovasz_softmax: the logits have ", sizes.channels, " classes; expected at least 1");
    require(sizes.images >= 0 && sizes.height >= 0 && sizes.width >= 0, "lovasz_softmax: sizes [", sizes.images, ", ",
            sizes.channels, ", ", sizes.height, ", ", sizes.width, "] must not be negative");
    require(sizes.threads >= 1, "lovasz_softmax: threads is ", sizes.threads, "; expected at least 1");
    int64_t room = kMaximalLogits;  // divided instead of multiplied: the product may not fit 64 bits
    for (const int64_t size : {sizes.images, sizes.channels, sizes.height, sizes.width}) {
        room = size == 0 ? kMaximalLogits : room / size;
        require(room > 0, "lovasz_softmax: [", sizes.images, ", ", sizes.channels, ", ", sizes.height, ", ",
                sizes.width, "] are more than 2^33 logits; split the batch");
    }
}

void check(const LovaszSoftmaxArguments& arguments) {
    check_sizes(arguments.sizes);
    const LovaszSoftmaxSizes& sizes = arguments.sizes;
    const bool empty = sizes.images * pixels_of(sizes) == 0;
    require(empty || arguments.logits != nullptr, "lovasz_softmax: logits is a null pointer");
    require(empty || (arguments.target_uint8 == nullptr) != (arguments.target_int64 == nullptr),
            "lovasz_softmax: exactly one of the two targets must be given");
    const int64_t needed = lovasz_softmax_workspace_bytes(sizes);
    require(arguments.workspace_bytes >= needed, "lovasz_softmax: the workspace has ", arguments.workspace_bytes,
            " bytes; expected ", needed);
    if (arguments.classes != LovaszClasses::listed) return;
    for (int64_t i = 0; i < arguments.listed_count; ++i) {
        const int64_t channel = arguments.listed[i];
        require(channel >= 0 && channel < sizes.channels, "lovasz_softmax: class ", channel, " is outside 0..",
                sizes.channels - 1);
        require(std::count(arguments.listed, arguments.listed + i, channel) == 0, "lovasz_softmax: class ", channel,
                " is listed twice");
    }
}

template <class Target>
class Loss {
  public:
    Loss(const LovaszSoftmaxArguments& arguments, const Target* target)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          target_(target),
          channels_(sizes_.channels),
          pixels_(pixels_of(sizes_)),
          workspace_(lay_out(arguments.workspace, sizes_)) {}

    double run() {
        count_classes();
        const int64_t tasks = list_tasks();
        softmax();
        parallel_for(tasks, 1, sizes_.threads,
                     [&](int64_t task, int64_t, int worker) { rank_and_weigh(workspace_.tasks[task], worker); });
        double loss = 0.0;
        for (int64_t task = 0; task < tasks; ++task)
            loss += workspace_.tasks[task].loss * workspace_.tasks[task].weight;
        if (arguments_.gradient != nullptr) chain_through_softmax(std::isnan(loss));
        return loss;
    }

  private:
    bool ignored(int64_t value) const { return arguments_.has_ignore_index && value == arguments_.ignore_index; }

    void count_classes() {
        parallel_for(sizes_.images, 1, sizes_.threads, [&](int64_t image, int64_t, int) {
            const Target* target = target_ + image * pixels_;
            int64_t* count = workspace_.class_count + image * channels_;
            std::fill(count, count + channels_, int64_t{0});
            ImageCount total{0, -1};
            for (int64_t pixel = 0; pixel < pixels_; ++pixel) {
                const int64_t value = static_cast<int64_t>(target[pixel]);
                if (ignored(value)) continue;
                if (value < 0 || value >= channels_) {
                    total.invalid_pixel = pixel;
                    break;
                }
                ++count[value];
                ++total.valid;
            }
            workspace_.image[image] = total;
        });
        for (int64_t image = 0; image < sizes_.images; ++image) {
            if (workspace_.image[image].invalid_pixel >= 0)
                fail_on_target(image, workspace_.image[image].invalid_pixel);
        }
    }

    [[noreturn]] void fail_on_target(int64_t image, int64_t pixel) const {
        std::ostringstream ignore;
        if (arguments_.has_ignore_index) ignore << " or the ignore_index " << arguments_.ignore_index;
        fail("target holds the value ", static_cast<int64_t>(target_[image * pixels_ + pixel]), " at [image ", image,
             ", row ", pixel / sizes_.width, ", column ", pixel % sizes_.width, "]; expected a class index in 0..",
             channels_ - 1, ignore.str());
    }

    // Writes the tasks of all segments and returns their number.
    int64_t list_tasks() {
        int64_t tasks = 0;
        int64_t counted_segments = 0;
        for (int64_t segment = 0; segment < segments_of(sizes_); ++segment) {
            if (segment_sum(segment, [&](int64_t image) { return workspace_.image[image].valid; }) == 0) continue;
            const int64_t first = tasks;
            for (int64_t i = 0; i < candidates(); ++i) {
                const int64_t channel = arguments_.classes == LovaszClasses::listed ? arguments_.listed[i] : i;
                const int64_t foreground = segment_sum(
                    segment, [&](int64_t image) { return workspace_.class_count[image * channels_ + channel]; });
                if (arguments_.classes == LovaszClasses::present && foreground == 0) continue;
                workspace_.tasks[tasks++] = Task{segment, channel, foreground, 0.0, 0.0};
            }
            for (int64_t i = first; i < tasks; ++i)
                workspace_.tasks[i].weight = 1.0 / static_cast<double>(tasks - first);
            ++counted_segments;
        }
        for (int64_t i = 0; i < tasks; ++i) workspace_.tasks[i].weight /= static_cast<double>(counted_segments);
        return tasks;
    }

    int64_t candidates() const {
        return arguments_.classes == LovaszClasses::listed ? arguments_.listed_count : channels_;
    }

    template <class Count>
    int64_t segment_sum(int64_t segment, const Count& count) const {
        const int64_t images = images_per_segment(sizes_);
        int64_t sum = 0;
        for (int64_t image = segment * images; image < (segment + 1) * images; ++image) sum += count(image);
        return sum;
    }

    // Calls body(image, first pixel, end pixel) in parallel for blocks of at most kBlock pixels of one image.
    template <class Body>
    void for_each_block(const Body& body) const {
        const int64_t blocks = (pixels_ + kBlock - 1) / kBlock;
        parallel_for(sizes_.images * blocks, 16, sizes_.threads, [&](int64_t begin, int64_t end, int) {
            for (int64_t block = begin; block < end; ++block) {
                const int64_t first = block % blocks * kBlock;
                body(block / blocks, first, std::min(pixels_, first + kBlock));
            }
        });
    }

    // Probabilities of every pixel, 0 at ignored ones; the gradient starts as zero.
    void softmax() {
        for_each_block([&](int64_t image, int64_t begin, int64_t end) {
            std::array<float, kBlock> largest;
            std::array<float, kBlock> sum;
            const int64_t count = end - begin;
            const float* logits = arguments_.logits + image * channels_ * pixels_ + begin;
            float* out = workspace_.probabilities + image * channels_ * pixels_ + begin;
            std::copy_n(logits, count, largest.begin());
            for (int64_t channel = 1; channel < channels_; ++channel) {
                const float* row = logits + channel * pixels_;
                for (int64_t i = 0; i < count; ++i) largest[i] = std::max(largest[i], row[i]);
            }
            std::fill_n(sum.begin(), count, 0.0F);
            for (int64_t channel = 0; channel < channels_; ++channel) {
                for (int64_t i = 0; i < count; ++i) {
                    const float value = std::exp(logits[channel * pixels_ + i] - largest[i]);
                    out[channel * pixels_ + i] = value;
                    sum[i] += value;
                }
            }
            const Target* target = target_ + image * pixels_ + begin;
            for (int64_t channel = 0; channel < channels_; ++channel) {
                float* row = out + channel * pixels_;
                for (int64_t i = 0; i < count; ++i) {
                    row[i] = ignored(static_cast<int64_t>(target[i])) ? 0.0F : row[i] / sum[i];
                }
                if (arguments_.gradient != nullptr) {
                    std::fill_n(arguments_.gradient + (image * channels_ + channel) * pixels_ + begin, count, 0.0F);
                }
            }
        });
    }

    // Loss of one class in one segment; leaves d(c) of its pixels in the gradient.
    void rank_and_weigh(Task& task, int worker) const {
        const int64_t room = images_per_segment(sizes_) * pixels_;
        uint64_t* words = workspace_.sort + static_cast<int64_t>(worker) * 2 * room;
        const int64_t count = collect(task, words);
        if (count < 0) {
            task.loss = kNan;
            return;
        }
        const uint64_t* ranked = sort_by_key(words, words + room, count);
        float* gradient = arguments_.gradient == nullptr ? nullptr : arguments_.gradient + task.channel * pixels_;
        const double total = static_cast<double>(task.foreground);
        double foreground = 0.0;  // F: exact, counts stay below 2^53
        double background = 0.0;  // B
        for (int64_t rank = 0; rank < count; ++rank) {
            const uint64_t word = ranked[rank];
            const bool is_foreground = (word & kForeground) != 0;
            const double united = total + background;
            double weight = 0.0;
            if (is_foreground) {
                weight = 1.0 / united;
                foreground += 1.0;
            } else {
                weight = total > 0.0 ? (total - foreground) / (united * (united + 1.0)) : (rank == 0 ? 1.0 : 0.0);
                background += 1.0;
            }
            task.loss += weight * static_cast<double>(error_of(word));
            if (gradient != nullptr) {
                const double signed_weight = (is_foreground ? -weight : weight) * task.weight;
                gradient[word & (kForeground - 1)] = static_cast<float>(signed_weight);
            }
        }
    }

    // Writes a word per pixel that counts, in memory order, and returns their number, or -1 if a probability is NaN.
    int64_t collect(const Task& task, uint64_t* words) const {
        const int64_t images = images_per_segment(sizes_);
        int64_t count = 0;
        bool finite = true;
        for (int64_t image = task.segment * images; image < (task.segment + 1) * images; ++image) {
            const int64_t start = image * channels_ * pixels_;
            const float* row = workspace_.probabilities + start + task.channel * pixels_;
            const Target* target = target_ + image * pixels_;
            for (int64_t pixel = 0; pixel < pixels_; ++pixel) {
                const int64_t value = static_cast<int64_t>(target[pixel]);
                const bool foreground = value == task.channel;
                const float error = foreground ? 1.0F - row[pixel] : row[pixel];
                finite = finite && error >= 0.0F && error <= 1.0F;
                // start + pixel < N C P <= 2^33: the position fits its bits. The slot past an ignored pixel is reused;
                // count <= pixels seen so far keeps the write inside the buffer.
                words[count] = key_of(error) | (foreground ? kForeground : 0) | static_cast<uint64_t>(start + pixel);
                count += ignored(value) ? 0 : 1;
            }
        }
        return finite ? count : -1;
    }

    static uint64_t key_of(float error) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &error, sizeof bits);
        return static_cast<uint64_t>(kOneBits - bits) << kSortKeyShift;
    }

    static float error_of(uint64_t word) {
        const std::uint32_t bits = kOneBits - static_cast<std::uint32_t>(word >> kSortKeyShift);
        float error = 0.0F;
        std::memcpy(&error, &bits, sizeof error);
        return error;
    }

    void chain_through_softmax(bool not_a_number) const {
        for_each_block([&](int64_t image, int64_t begin, int64_t end) {
            std::array<float, kBlock> mean;
            const int64_t count = end - begin;
            const int64_t start = image * channels_ * pixels_ + begin;
            const float* probabilities = workspace_.probabilities + start;
            float* gradient = arguments_.gradient + start;
            std::fill_n(mean.begin(), count, not_a_number ? kNan : 0.0F);
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const int64_t row = channel * pixels_;
                for (int64_t i = 0; i < count; ++i) mean[i] += probabilities[row + i] * gradient[row + i];
            }
            for (int64_t channel = 0; channel < channels_; ++channel) {
                const int64_t row = channel * pixels_;
                for (int64_t i = 0; i < count; ++i) {
                    gradient[row + i] = probabilities[row + i] * (gradient[row + i] - mean[i]);
                }
            }
        });
    }

    const LovaszSoftmaxArguments& arguments_;
    const LovaszSoftmaxSizes& sizes_;
    const Target* target_;
    int64_t channels_;
    int64_t pixels_;
    Workspace workspace_;
};

}  // namespace

std::int64_t lovasz_softmax_workspace_bytes(const LovaszSoftmaxSizes& sizes) {
    check_sizes(sizes);
    return lay_out(nullptr, sizes).bytes;
}

double lovasz_softmax(const LovaszSoftmaxArguments& arguments) {
    check(arguments);
    if (arguments.sizes.images * pixels_of(arguments.sizes) == 0) return 0.0;
    return arguments.target_uint8 != nullptr ? Loss<std::uint8_t>(arguments, arguments.target_uint8).run()
                                             : Loss<int64_t>(arguments, arguments.target_int64).run();
}

}  // namespace etnet
