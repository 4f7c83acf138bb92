// Errors of the native part, reported by exception: wrong arguments, before any work starts, and failures of CUDA.
#pragma once

#include <sstream>
#include <stdexcept>

namespace etnet {

// An argument breaks the contract of a header; the message is one sentence. Python sees a ValueError.
class ArgumentError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

// A call of the CUDA runtime failed; the message names the step. Python sees a RuntimeError.
class CudaError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw ArgumentError(message.str());
}

template <class... Parts>
void require(bool condition, const Parts&... parts) {
    if (!condition) fail(parts...);
}

}  // namespace etnet
