// The two passes of the weighted block over the map of one image, in pieces that are done independently.
#pragma once

#include <cstdint>

#include "etnet/ops/weighted_block.hpp"

namespace etnet {

// The numbers of one image in memory order, [C, P] or [P, C].
template <class T>
struct ImageMap {
    const T* x;
    const T* gradient_out;  // backward
    T* out;                 // out, or the gradient of x
};

// T: float, HalfFloat or BrainFloat.
template <class T>
class MapPasses {
  public:
    MapPasses(const WeightedBlockSizes& sizes, bool backward);

    // Pieces of either pass: some pixels of a channels-last map, some channels of a contiguous one.
    std::int64_t pieces() const;

    // Sums over the pixels, of x or of g x: `partial` [pieces, C] for channels-last maps, otherwise `sums` [C] itself.
    void sum(const ImageMap<T>& image, std::int64_t piece, float* partial, float* sums) const;

    // Adds the pieces of a channels-last map up, in their order.
    void join(const float* partial, float* sums) const;

    // out = x scale, or the gradient of x = g scale + shift.
    void scale(const ImageMap<T>& image, std::int64_t piece, const float* scale, const float* shift) const;

  private:
    std::int64_t channels_;
    std::int64_t pixels_;
    bool channels_last_;
    bool backward_;
};

// Numbers of `partial` for one image.
std::int64_t partial_sums(const WeightedBlockSizes& sizes);

}  // namespace etnet
