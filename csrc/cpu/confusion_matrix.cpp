// CPU version of etnet/ops/confusion_matrix.hpp: one pass over the pixels, a table of counts for each thread.
#include "etnet/ops/confusion_matrix.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <type_traits>

#include "etnet/error.hpp"
#include "etnet/parallel.hpp"

namespace etnet {
namespace {

using std::int32_t;
using std::int64_t;

constexpr int64_t kMaximalClasses = 4096;  // the place of a pair fits 32 bits
constexpr int64_t kBlock = 1024;           // pixels whose places stay in the first-level cache
constexpr int64_t kGrain = 64 * kBlock;
constexpr int64_t kAlignment = 64;

constexpr int32_t kIgnored = -1;
constexpr int32_t kInvalid = -2;

struct alignas(kAlignment) Classes : std::array<int32_t, kBlock> {};

// Neighbouring pixels have mostly the same pair, and a sum that waits for the one before it is slow: few classes get
// four tables, used in turn.
int64_t tables_of(const ConfusionMatrixSizes& sizes) {
    constexpr int64_t kFewClasses = 32;
    return sizes.classes <= kFewClasses ? 4 : 1;
}

// Counts of the pairs, one place for pixels that do not count, rounded up so that no two threads share a cache line.
int64_t table_size(const ConfusionMatrixSizes& sizes) {
    constexpr int64_t kInLine = kAlignment / static_cast<int64_t>(sizeof(int64_t));
    return (sizes.classes * sizes.classes + 1 + kInLine - 1) / kInLine * kInLine;
}

// Threads that have something to do.
int useful_threads(const ConfusionMatrixSizes& sizes) {
    return static_cast<int>(std::min<int64_t>(sizes.threads, 1 + sizes.pixels / kGrain));
}

template <class Integer>
void read_classes(const Integer* values, int64_t count, int64_t classes, int32_t* out) {
    // Negative values become huge ones. 32 bits where they suffice, which is half as many vectors.
    using Signed = std::conditional_t<(sizeof(Integer) > 4), int64_t, int32_t>;
    using Unsigned = std::make_unsigned_t<Signed>;
    for (int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<Unsigned>(static_cast<Signed>(values[i]));
        out[i] = value < static_cast<Unsigned>(classes) ? static_cast<int32_t>(value) : kInvalid;
    }
}

template <class Integer>
void mark_ignored(const Integer* values, int64_t count, int64_t ignore_index, int32_t* out) {
    if constexpr (std::is_same_v<Integer, std::uint64_t>) {
        if (ignore_index < 0) return;  // as 64 unsigned bits it would be another number
    } else {
        if (ignore_index < int64_t{std::numeric_limits<Integer>::min()} ||
            ignore_index > int64_t{std::numeric_limits<Integer>::max()})
            return;
    }
    const auto ignored = static_cast<Integer>(ignore_index);
    for (int64_t i = 0; i < count; ++i) out[i] = values[i] == ignored ? kIgnored : out[i];
}

// Calls body(values + first) with the array's own type.
template <class Body>
void with_type(const void* values, IntegerType type, int64_t first, const Body& body) {
    switch (type) {
        case IntegerType::int8:
            return body(static_cast<const std::int8_t*>(values) + first);
        case IntegerType::uint8:
            return body(static_cast<const std::uint8_t*>(values) + first);
        case IntegerType::int16:
            return body(static_cast<const std::int16_t*>(values) + first);
        case IntegerType::uint16:
            return body(static_cast<const std::uint16_t*>(values) + first);
        case IntegerType::int32:
            return body(static_cast<const int32_t*>(values) + first);
        case IntegerType::uint32:
            return body(static_cast<const std::uint32_t*>(values) + first);
        case IntegerType::int64:
            return body(static_cast<const int64_t*>(values) + first);
        default:
            return body(static_cast<const std::uint64_t*>(values) + first);
    }
}

class Counter {
  public:
    explicit Counter(const ConfusionMatrixArguments& arguments)
        : arguments_(arguments),
          sizes_(arguments.sizes),
          tables_(tables_of(sizes_)),
          table_size_(table_size(sizes_)),
          counts_(static_cast<int64_t*>(arguments.workspace)) {}

    bool run() const {
        const int threads = useful_threads(sizes_);
        std::fill_n(counts_, threads * tables_ * table_size_, int64_t{0});
        std::atomic<bool> valid{true};
        parallel_for(sizes_.pixels, kGrain, threads, [&](int64_t begin, int64_t end, int worker) {
            for (int64_t first = begin; first < end; first += kBlock) {
                if (!count(first, std::min(kBlock, end - first), counts_ + worker * tables_ * table_size_)) {
                    valid = false;
                }
            }
        });
        const int64_t pairs = sizes_.classes * sizes_.classes;
        std::fill_n(arguments_.counts, pairs, int64_t{0});
        for (int64_t table = 0; table < threads * tables_; ++table) {
            for (int64_t i = 0; i < pairs; ++i) arguments_.counts[i] += counts_[table * table_size_ + i];
        }
        return valid;
    }

  private:
    // False if a pixel that counts holds no class index; the block is not counted then.
    bool count(int64_t first, int64_t size, int64_t* counts) const {
        Classes rows;
        Classes columns;
        read(first, size, rows, columns);
        const auto classes = static_cast<int32_t>(sizes_.classes);
        const int32_t elsewhere = classes * classes;
        int32_t invalid = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
            const bool counts_here = rows[i] != kIgnored;
            invalid |= static_cast<int32_t>(counts_here & ((rows[i] | columns[i]) < 0));
            rows[i] = counts_here ? rows[i] * classes + columns[i] : elsewhere;
        }
        if (invalid != 0) return false;
        add(rows, size, counts);
        return true;
    }

    void read(int64_t first, int64_t size, Classes& rows, Classes& columns) const {
        with_type(arguments_.labels, arguments_.labels_type, first,
                  [&](const auto* values) { read_classes(values, size, sizes_.classes, columns.data()); });
        with_type(arguments_.target, arguments_.target_type, first, [&](const auto* values) {
            read_classes(values, size, sizes_.classes, rows.data());
            if (arguments_.has_ignore_index) mark_ignored(values, size, arguments_.ignore_index, rows.data());
        });
        if (arguments_.where == nullptr) return;
        const std::uint8_t* where = arguments_.where + first;
        for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) rows[i] = where[i] != 0 ? rows[i] : kIgnored;
    }

    void add(const Classes& places, int64_t size, int64_t* counts) const {
        const int64_t step = tables_ == 4 ? table_size_ : 0;
        std::size_t i = 0;
        for (; i + 4 <= static_cast<std::size_t>(size); i += 4) {
            ++counts[places[i]];
            ++counts[places[i + 1] + step];
            ++counts[places[i + 2] + 2 * step];
            ++counts[places[i + 3] + 3 * step];
        }
        for (; i < static_cast<std::size_t>(size); ++i) ++counts[places[i]];
    }

    const ConfusionMatrixArguments& arguments_;
    const ConfusionMatrixSizes& sizes_;
    int64_t tables_;
    int64_t table_size_;
    int64_t* counts_;
};

}  // namespace

std::int64_t confusion_matrix_workspace_bytes(const ConfusionMatrixSizes& sizes) {
    require(sizes.pixels >= 0, "confusion_matrix: pixels is ", sizes.pixels, "; expected at least 0");
    require(sizes.classes >= 1 && sizes.classes <= kMaximalClasses, "confusion_matrix: classes is ", sizes.classes,
            "; expected 1..", kMaximalClasses);
    require(sizes.threads >= 1, "confusion_matrix: threads is ", sizes.threads, "; expected at least 1");
    return useful_threads(sizes) * tables_of(sizes) * table_size(sizes) * static_cast<int64_t>(sizeof(int64_t));
}

bool confusion_matrix(const ConfusionMatrixArguments& arguments) {
    const std::int64_t needed = confusion_matrix_workspace_bytes(arguments.sizes);
    const bool empty = arguments.sizes.pixels == 0;
    require(empty || arguments.labels != nullptr, "confusion_matrix: labels is a null pointer");
    require(empty || arguments.target != nullptr, "confusion_matrix: target is a null pointer");
    require(arguments.counts != nullptr, "confusion_matrix: counts is a null pointer");
    require(arguments.workspace != nullptr && arguments.workspace_bytes >= needed,
            "confusion_matrix: the workspace has ", arguments.workspace_bytes, " bytes; expected ", needed);
    return Counter(arguments).run();
}

}  // namespace etnet
