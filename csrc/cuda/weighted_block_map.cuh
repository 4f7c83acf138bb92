// The two passes of the weighted block over the map.
//
// A row is a channel of an image (contiguous maps). A piece is a part of a row, or of the pixels of a channels-last
// image; an image has at most kPieces of them, whose sums are added in their order. Both passes cut the map the same
// way; the second takes the pieces from the last to the first, because the first pass leaves the last ones in L2.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "etnet/ops/weighted_block.hpp"

namespace etnet {

// How an image is cut.
struct MapCut {
    std::int64_t channels;
    std::int64_t pixels;
    std::int64_t piece;   // numbers of a row, or pixels
    std::int64_t pieces;  // of a row, or of an image
};

MapCut cut_of(const WeightedBlockSizes& sizes);

// Blocks of the larger of the two grids, that of the passes which read number by number.
std::int64_t largest_grid(const WeightedBlockSizes& sizes);

// What the passes over the map read and write. `other` is g for the sums of g x.
template <class T>
struct DeviceMap {
    const T* from;
    const T* other;
    T* out;
    const float* scale;         // of image 0
    std::int64_t scale_stride;  // from image to image
    const float* shift;         // [N, C], or nullptr
};

// Enqueues the passes, in vectors where they fit. T: float, __half or __nv_bfloat16.
template <class T, bool backward>
class DeviceMapPasses {
  public:
    DeviceMapPasses(const WeightedBlockSizes& sizes, const DeviceMap<T>& map, cudaStream_t stream);

    // partial [N, C, pieces] (contiguous) or [N, pieces, C]: sums of from, backward of from * other.
    void sum(float* partial) const;

    // out = from * scale forward, other * scale + shift backward.
    void scale() const;

  private:
    template <int size>
    void sum_by(float* partial) const;
    template <int size>
    void scale_by() const;

    WeightedBlockSizes sizes_;
    MapCut cut_;
    DeviceMap<T> map_;
    cudaStream_t stream_;
    bool vectors_;
};

}  // namespace etnet
