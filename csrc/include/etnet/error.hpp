// Errors of the native part: a wrong argument is reported by exception before any work starts.
#pragma once

#include <sstream>
#include <stdexcept>

namespace etnet {

// An argument breaks the contract of a header; the message is one sentence. Python sees a ValueError.
class ArgumentError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
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
