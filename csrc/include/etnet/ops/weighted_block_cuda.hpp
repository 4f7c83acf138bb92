// Weighted block of ops/weighted_block.hpp on a CUDA device: the same contract, with these differences.
//
// All pointers are device memory of the current device; the workspace is aligned to 256 bytes. The calls only enqueue
// work on `stream`, a cudaStream_t: they allocate nothing and do not wait, so they can be captured into a graph. The
// result is the same on every run; it may differ in the last places from that of the CPU. `threads` is not used.
// Maps of billions of images or channels that do not fit a grid of 2^31 - 1 blocks are refused.
#pragma once

#include <cstdint>

#include "etnet/ops/weighted_block.hpp"

namespace etnet {

// Size of the scratch memory of either pass. Throws ArgumentError for sizes outside their limits.
std::int64_t weighted_block_cuda_workspace_bytes(const WeightedBlockSizes& sizes);

// Throw ArgumentError for arguments outside the contract and CudaError where a launch fails.
void weighted_block_cuda(const WeightedBlockArguments& arguments, void* stream);
void weighted_block_backward_cuda(const WeightedBlockArguments& arguments, void* stream);

}  // namespace etnet
