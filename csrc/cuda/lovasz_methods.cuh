// The two methods of ops/lovasz_softmax.hpp for CUDA: memory and host functions that enqueue their kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.cuh"
#include "lovasz_pixels.cuh"

namespace etnet {

struct DeviceSort {
    std::uint32_t* keys[2];    // [pixels of a segment]
    std::uint32_t* places[2];  // [pixels of a segment], with the member bit on top
    SoftmaxScale* scales;      // [pixels of a segment]; unless there are two classes
    std::uint32_t* members;    // [tiles] members in a tile; then those before it
    double* tile_loss;         // [tiles]
    void* temporary;
    std::size_t temporary_bytes;
};

struct DeviceHistogram {
    std::uint32_t* counts;  // [tables, 2, bins], tables = 1 for two classes, else C
    float* weights;         // [tables, 2, bins]
};

DeviceSort lay_out_sort(DeviceLayout& layout, const LovaszSoftmaxSizes& sizes);
DeviceHistogram lay_out_histogram(DeviceLayout& layout, const LovaszSoftmaxSizes& sizes);

// Each enqueues the loss of every class into class_loss[C] (the sum of two classes in the first) and the gradient.
// `wanted` says for each class whether it may count; the shares, which only the device knows, decide.
void enqueue_sort(const DeviceSegment& segment, LogitsType type, const std::vector<char>& wanted,
                  const DeviceSort& memory, double* class_loss, cudaStream_t stream);
void enqueue_histogram(const DeviceSegment& segment, LogitsType type, std::int64_t bins, const DeviceHistogram& memory,
                       double* class_loss, cudaStream_t stream);

}  // namespace etnet
