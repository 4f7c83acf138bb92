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

DeviceSort lay_out_sort(DeviceLayout& layout, const LovaszSoftmaxSizes& sizes);

// Both enqueue the loss of every class into class_loss[C] (the sum of two classes in the first). Sorting also writes
// the gradient; `wanted` says for each class whether it may count, and the shares, which only the device knows, decide.
// The histogram writes the weights [tables, 2, bins] through counts of the same shape; tables = 1 for two classes, else
// C.
void enqueue_sort(const DeviceSegment& segment, LogitsType type, const std::vector<char>& wanted,
                  const DeviceSort& memory, double* class_loss, cudaStream_t stream);
void enqueue_histogram(const DeviceSegment& segment, LogitsType type, std::int64_t bins, std::uint32_t* counts,
                       float* weights, double* class_loss, cudaStream_t stream);

// Enqueues the gradient from weights that the histogram wrote; the segment needs no shares.
void enqueue_look_up(const DeviceSegment& segment, LogitsType type, std::int64_t bins, const float* weights,
                     const float* scale, cudaStream_t stream);

}  // namespace etnet
