// A condition that holds, or an exception with the reason. No streams: where a compiler links its standard library into
// this one, torch brings another, and a stream would mix the two. No torch.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

namespace advkernels {

template <typename Part>
std::string part_text(const Part& part) {
    if constexpr (std::is_arithmetic_v<Part>) {
        return std::to_string(part);
    } else {
        return std::string(part);
    }
}

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    throw std::runtime_error((part_text(parts) + ...));
}

}  // namespace advkernels

// The parts of the reason are evaluated only where it is needed.
#define AK_REQUIRE(condition, ...)             \
    do {                                       \
        if (!(condition)) {                    \
            ::advkernels::refuse(__VA_ARGS__); \
        }                                      \
    } while (false)
