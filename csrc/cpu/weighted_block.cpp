// CPU version of etnet/ops/weighted_block.hpp: a pass of sums, the two small products, and a pass that scales.
#include "etnet/ops/weighted_block.hpp"

#include <algorithm>
#include <cstdint>

#include "etnet/parallel.hpp"
#include "etnet/weighted_block_check.hpp"
#include "half_precision.hpp"
#include "huge_pages.hpp"
#include "weighted_block_map.hpp"
#include "weighted_block_small.hpp"

namespace etnet {
namespace {

using std::int64_t;

constexpr int64_t kNumbersPerThread = 1 << 19;    // below this a second thread costs more than it brings
constexpr int64_t kHugeBytes = int64_t{1} << 25;  // from here on allocators hand out fresh memory every time

struct Layout {
    explicit Layout(const WeightedBlockSizes& sizes) {
        const int64_t copied = sizes.parameter_type == FloatType::float32
                                   ? 0
                                   : 2 * sizes.channels * sizes.hidden + sizes.channels + sizes.hidden;
        partial = partial_sums(sizes);
        image = 2 * sizes.channels + sizes.hidden;
        parameters = sizes.images * (partial + image);
        bytes = (parameters + copied) * static_cast<int64_t>(sizeof(float));
    }
    int64_t partial;     // numbers of an image's pieces
    int64_t image;       // numbers of an image's sum, slope and shift, behind all pieces
    int64_t parameters;  // where the copies of the parameters begin
    int64_t bytes;
};

// Calls body(first, last, threads) so that images are done side by side, each by one thread, whose second pass finds
// the image in the cache; what does not divide evenly is done by all threads together.
template <class Body>
void for_each_image(int64_t images, int threads, const Body& body) {
    const int64_t alone = images - images % threads;
    parallel_for(alone, 1, threads, [&](int64_t image, int64_t, int) { body(image, 1); });
    for (int64_t image = alone; image < images; ++image) body(image, threads);
}

template <class T>
class Block {
  public:
    Block(const WeightedBlockArguments& arguments, bool backward)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          layout_(sizes_),
          passes_(sizes_, backward),
          workspace_(static_cast<float*>(arguments.workspace)),
          parameters_(read_parameters(backward)) {
        const int64_t useful = 1 + sizes_.images * numbers() / kNumbersPerThread;
        threads_ = static_cast<int>(std::min<int64_t>(sizes_.threads, useful));
    }

    void forward() const {
        prefer_huge(arguments_.out);
        for_each_image(sizes_.images, threads_, [&](int64_t n, int threads) {
            const SmallArrays rows = rows_of(n);
            const ImageMap<T> image{at<const T>(arguments_.x, n), nullptr, at<T>(arguments_.out, n)};
            sum(image, n, threads, rows.mean);
            weigh(sizes_, parameters_, rows);
            scale(image, threads, rows);
        });
    }

    void backward() const {
        prefer_huge(arguments_.gradient_x);
        for_each_image(sizes_.images, threads_, [&](int64_t n, int threads) {
            const SmallArrays rows = rows_of(n);
            const ImageMap<T> image{at<const T>(arguments_.x, n), at<const T>(arguments_.gradient_out, n),
                                    at<T>(arguments_.gradient_x, n)};
            sum(image, n, threads, rows.sum);
            chain(sizes_, parameters_, rows);
            scale(image, threads, rows);
        });
        add_parameter_gradients();
    }

  private:
    int64_t numbers() const { return sizes_.channels * sizes_.height * sizes_.width; }

    template <class Number, class Pointer>
    Number* at(Pointer* buffer, int64_t image) const {
        return static_cast<Number*>(buffer) + image * numbers();
    }

    void prefer_huge(void* buffer) const {
        const int64_t bytes = sizes_.images * numbers() * static_cast<int64_t>(sizeof(T));
        if (bytes >= kHugeBytes) prefer_huge_pages(buffer, bytes);
    }

    SmallArrays rows_of(int64_t image) const {
        float* state = arguments_.state + image * (2 * sizes_.channels + sizes_.hidden);
        float* own = workspace_ + sizes_.images * layout_.partial + image * layout_.image;
        return {state, state + sizes_.channels, state + sizes_.channels + sizes_.hidden,
                own,   own + sizes_.channels,   own + sizes_.channels + sizes_.hidden};
    }

    void sum(const ImageMap<T>& image, int64_t index, int threads, float* sums) const {
        float* partial = workspace_ + index * layout_.partial;
        parallel_for(passes_.pieces(), 1, threads,
                     [&](int64_t piece, int64_t, int) { passes_.sum(image, piece, partial, sums); });
        passes_.join(partial, sums);
    }

    void scale(const ImageMap<T>& image, int threads, const SmallArrays& rows) const {
        parallel_for(passes_.pieces(), 1, threads,
                     [&](int64_t piece, int64_t, int) { passes_.scale(image, piece, rows.scale, rows.shift); });
    }

    void add_parameter_gradients() const {
        const int64_t channels = sizes_.channels;
        const int64_t hidden = sizes_.hidden;
        std::fill_n(arguments_.gradient_w1, hidden * channels, 0.0F);
        std::fill_n(arguments_.gradient_b1, hidden, 0.0F);
        std::fill_n(arguments_.gradient_w2, channels * hidden, 0.0F);
        std::fill_n(arguments_.gradient_b2, channels, 0.0F);
        for (int64_t n = 0; n < sizes_.images; ++n) add_image(sizes_, rows_of(n), arguments_);
    }

    Parameters read_parameters(bool backward) const {
        const int64_t matrix = sizes_.channels * sizes_.hidden;
        float* room = workspace_ + layout_.parameters;
        Parameters parameters{};
        parameters.w1 = read(arguments_.w1, matrix, room);
        parameters.w2 = read(arguments_.w2, matrix, room + matrix);
        if (backward) return parameters;
        parameters.b1 = read(arguments_.b1, sizes_.hidden, room + 2 * matrix);
        parameters.b2 = read(arguments_.b2, sizes_.channels, room + 2 * matrix + sizes_.hidden);
        return parameters;
    }

    const float* read(const void* numbers, int64_t count, float* room) const {
        if (sizes_.parameter_type == FloatType::float32) return static_cast<const float*>(numbers);
        if (sizes_.parameter_type == FloatType::float16) return widened<HalfFloat>(numbers, count, room);
        return widened<BrainFloat>(numbers, count, room);
    }

    template <class Number>
    static const float* widened(const void* numbers, int64_t count, float* room) {
        for (int64_t i = 0; i < count; ++i) room[i] = widen(static_cast<const Number*>(numbers)[i]);
        return room;
    }

    const WeightedBlockArguments& arguments_;
    const WeightedBlockSizes& sizes_;
    Layout layout_;
    MapPasses<T> passes_;
    float* workspace_;
    Parameters parameters_;
    int threads_ = 1;
};

template <class Body>
void with_type(FloatType type, const Body& body) {
    if (type == FloatType::float32) {
        body(float{});
    } else if (type == FloatType::float16) {
        body(HalfFloat{});
    } else {
        body(BrainFloat{});
    }
}

}  // namespace

std::int64_t weighted_block_workspace_bytes(const WeightedBlockSizes& sizes) {
    check_sizes(sizes);
    return Layout(sizes).bytes;
}

void weighted_block(const WeightedBlockArguments& arguments) {
    check_forward(arguments, weighted_block_workspace_bytes(arguments.sizes));
    with_type(arguments.sizes.type, [&](auto number) { Block<decltype(number)>(arguments, false).forward(); });
}

void weighted_block_backward(const WeightedBlockArguments& arguments) {
    check_backward(arguments, weighted_block_workspace_bytes(arguments.sizes));
    with_type(arguments.sizes.type, [&](auto number) { Block<decltype(number)>(arguments, true).backward(); });
}

}  // namespace etnet
