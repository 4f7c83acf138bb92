// Lovasz-Softmax loss and its gradient with respect to the logits (paper eq. 1; Berman et al. 2018, Alg. 1).
//
// With probabilities p = softmax(logits over classes), the error of a pixel i for class c is
//     m_i = 1 - p_i(c)  where target_i = c ("foreground"),      m_i = p_i(c)  elsewhere ("background").
// The pixels of a segment (one image, or the whole batch) that are not ignored are ranked by falling error; equal
// errors keep their memory order. A pixel with F foreground and B background pixels ranked before it, of G foreground
// pixels in the segment, has the weight (the discrete derivative of the Jaccard loss)
//     foreground: g = 1 / (G + B)
//     background: g = (G - F) / ((G + B) (G + B + 1))
//     G = 0:      g = 1 for the first ranked pixel, 0 for the others.
// The loss of (segment, class) is sum_i g_i m_i; it is averaged over the counted classes of a segment, then over the
// segments. Segments in which every pixel is ignored are left out; if none is left the loss and the gradient are 0.
//
// Gradient: with d(c) = +-g / (counted classes) / (counted segments), - for foreground, + for background, 0 for a class
// that is not counted, the chain through softmax is
//     gradient(c) = p(c) (d(c) - sum_k p(k) d(k)),     0 at ignored pixels.
//
// LovaszMethod::sort is this, exactly. LovaszMethod::histogram replaces each error by the nearest of the `bins` numbers
// i / (bins - 1), which needs no ranking: the loss of (segment, class) is exact for the replaced errors and hence at
// most 1 / (2 (bins - 1)) off (proof: etnet.ops.lovasz), and g is the mean over the orders "foreground first" and
// "background first" of the pixels in a bin, a valid derivative. p stays exact.
//
// The sort writes the gradient together with the loss. The histogram writes the weights of all bins, and
// lovasz_softmax_look_up turns them into the gradient when it is wanted, already multiplied by the derivative of what
// follows: nothing of the size of the logits is kept in between. For C != 2 the weights are g / (counted classes) /
// (counted segments) of each class, [segments, C, 2, bins], background first. Two classes have equal errors and share
// one table [segments, 1, 2, bins]: for class 0 and for class 1, the sum of a pixel's weights for both classes.
//
// A logit that makes a probability NaN (NaN or +inf, at a pixel that is not ignored) gives a NaN loss and fills the
// whole gradient, and all weights, with NaN. Probabilities and errors are float32; weights and sums are float64. The
// result does not depend on the number of threads.
#pragma once

#include <cstdint>

#include "etnet/float_type.hpp"

namespace etnet {

enum class LovaszClasses {
    present,  // classes that occur in the target of the segment
    all,      // every class
    listed,   // the classes in `listed`, present or not
};

enum class LovaszMethod { sort, histogram };

using LogitsType = FloatType;
enum class TargetType { uint8, int32, int64 };

struct LovaszSoftmaxSizes {
    std::int64_t images = 0;     // N
    std::int64_t channels = 0;   // C >= 1
    std::int64_t height = 0;     // H
    std::int64_t width = 0;      // W;  N C H W <= 2^33, H W (N H W unless per_image) < 2^32
    bool per_image = false;      // a segment is one image; otherwise the whole batch is one segment
    bool channels_last = false;  // logits and gradient lie as [N, H, W, C] instead of [N, C, H, W]
    bool with_gradient = true;
    LovaszMethod method = LovaszMethod::sort;
    std::int64_t bins = 4096;  // 2..65536; for LovaszMethod::histogram
    int threads = 1;           // at least 1
};

struct LovaszSoftmaxArguments {
    LovaszSoftmaxSizes sizes;
    const void* logits = nullptr;  // N C H W numbers, dense
    LogitsType logits_type = LogitsType::float32;
    const void* target = nullptr;  // [N, H, W] contiguous
    TargetType target_type = TargetType::int64;
    bool has_ignore_index = false;  // whether pixels with target == ignore_index are left out
    std::int64_t ignore_index = 0;
    LovaszClasses classes = LovaszClasses::present;
    const std::int64_t* listed = nullptr;  // [listed_count], each in 0..C-1, none twice; for LovaszClasses::listed
    std::int64_t listed_count = 0;
    // N C H W numbers laid out as the logits, aligned to 8 bytes; written by the sort with sizes.with_gradient and by
    // lovasz_softmax_look_up.
    float* gradient = nullptr;
    float* weights = nullptr;      // histogram: written by lovasz_softmax, read by lovasz_softmax_look_up
    const float* scale = nullptr;  // [1], for lovasz_softmax_look_up: multiplies the gradient
    void* workspace = nullptr;     // lovasz_softmax_workspace_bytes(sizes) bytes, aligned to 64
    std::int64_t workspace_bytes = 0;
};

// Size of the scratch memory of both functions. sort: two buffers of 8 bytes per pixel of a segment (for each segment
// in work) and the probabilities (4 N C H W bytes); for two classes with gradient one buffer and nothing more.
// histogram: a table of counts and a block of probabilities for each thread. Throws ArgumentError for sizes outside
// their limits.
std::int64_t lovasz_softmax_workspace_bytes(const LovaszSoftmaxSizes& sizes);

// Returns the loss. No buffer may overlap another. Throws ArgumentError, before anything is written but the workspace,
// when a target is neither a class nor ignored (the message names its value and position) or an argument is missing.
double lovasz_softmax(const LovaszSoftmaxArguments& arguments);

// Writes the gradient of the histogram method, times *scale, from the weights that lovasz_softmax wrote for the same
// logits and target. Which classes count is in the weights.
void lovasz_softmax_look_up(const LovaszSoftmaxArguments& arguments);

}  // namespace etnet
