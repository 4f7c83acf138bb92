// Lovasz-Softmax of ops/lovasz_softmax.hpp on a CUDA device: the same contract, with these differences.
//
// All pointers but `listed` (`scale` too) are device memory of the current device; the workspace is aligned to 256
// bytes. The call only enqueues work on `stream`: it allocates nothing and does not wait, so it can be captured into a
// graph. Hence a target that is neither a class nor ignored cannot raise: it gives a NaN loss and fills the gradient
// with NaN, as a NaN probability does. The result is the same on every run on one device (counts are integers, sums
// have a fixed order); it may differ in the last places from that of the CPU. `threads` is not used.
#pragma once

#include <cstdint>

#include "etnet/ops/lovasz_softmax.hpp"

namespace etnet {

// Size of the scratch memory. sort: 16 bytes per pixel of a segment, 8 more unless there are two classes, and what the
// sorting library asks for on the current device. histogram: tables of `bins` numbers. Throws ArgumentError for sizes
// outside their limits, and for 2^31 or more pixels in a segment.
std::int64_t lovasz_softmax_cuda_workspace_bytes(const LovaszSoftmaxSizes& sizes);

// Enqueues the computation of *loss (float32, in device memory) and the gradient on `stream`, a cudaStream_t. Throws
// ArgumentError for arguments outside the contract and CudaError where a launch fails.
void lovasz_softmax_cuda(const LovaszSoftmaxArguments& arguments, float* loss, void* stream);

// Enqueues the gradient of the histogram method, as lovasz_softmax_look_up; it needs no workspace.
void lovasz_softmax_look_up_cuda(const LovaszSoftmaxArguments& arguments, void* stream);

}  // namespace etnet
