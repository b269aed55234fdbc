// A record of the kernels' accesses to memory when they run on the host, for the tests.
#pragma once

#include <array>
#include <cstring>
#include <vector>

#include "../formulas.h"

namespace advkernels::cuda {

struct Access {
    int64_t address;
    int64_t bytes;
    std::array<uint32_t, 4> words;  // what was written
};

struct Trace {
    bool dry = false;  // addresses only: reads give zeros, nothing is written
    std::vector<Access> reads, writes;
};

inline Trace& trace() {
    static Trace instance;
    return instance;
}

template <typename T>
T traced_read(const char* address) {
    trace().reads.push_back({reinterpret_cast<int64_t>(address), sizeof(T), {}});
    T value{};
    if (!trace().dry) {
        std::memcpy(&value, address, sizeof value);
    }
    return value;
}

template <typename T>
void traced_write(char* address, const T& value) {
    Access access{reinterpret_cast<int64_t>(address), sizeof(T), {}};
    std::memcpy(access.words.data(), &value, sizeof value);
    trace().writes.push_back(access);
    if (!trace().dry) {
        std::memcpy(address, &value, sizeof value);
    }
}

}  // namespace advkernels::cuda
