// Number formats of the tensors that kernels read and write; all arithmetic is in float32 or float64.
#pragma once

namespace etnet {

enum class FloatType { float32, float16, bfloat16 };

}  // namespace etnet
