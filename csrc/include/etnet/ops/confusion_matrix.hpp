// Confusion matrix: how often each pair of a true and a predicted class occurs.
//
//     counts[t, p] = number of pixels i that count with target_i = t and labels_i = p
//
// A pixel counts unless where_i = 0 or target_i = ignore_index (also where that is a class index); what it holds does
// not matter then. The result does not depend on the number of threads.
#pragma once

#include <cstdint>

namespace etnet {

enum class IntegerType { int8, uint8, int16, uint16, int32, uint32, int64, uint64 };

struct ConfusionMatrixSizes {
    std::int64_t pixels = 0;
    std::int64_t classes = 0;  // C, 1..4096
    int threads = 1;           // at least 1
};

struct ConfusionMatrixArguments {
    ConfusionMatrixSizes sizes;
    const void* labels = nullptr;  // [pixels], predicted classes
    IntegerType labels_type = IntegerType::uint8;
    const void* target = nullptr;  // [pixels], true classes
    IntegerType target_type = IntegerType::uint8;
    const std::uint8_t* where = nullptr;  // [pixels], 0 for pixels that do not count; nullptr: all count
    bool has_ignore_index = false;
    std::int64_t ignore_index = 0;
    std::int64_t* counts = nullptr;  // [C, C], written
    void* workspace = nullptr;       // confusion_matrix_workspace_bytes(sizes) bytes, aligned to 64
    std::int64_t workspace_bytes = 0;
};

// Scratch memory: the counts of each thread. Throws ArgumentError for sizes outside their limits.
std::int64_t confusion_matrix_workspace_bytes(const ConfusionMatrixSizes& sizes);

// Writes the counts and returns true; false, with counts that mean nothing, when a pixel that counts holds no class
// index. No buffer may overlap another. Throws ArgumentError when an argument is missing.
bool confusion_matrix(const ConfusionMatrixArguments& arguments);

}  // namespace etnet
