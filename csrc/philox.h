// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), for host and device. No torch.
#pragma once

#include "formulas.h"

namespace advkernels {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

// Four words: a counter that becomes four random words.
struct Philox4 {
    uint32_t w0, w1, w2, w3;
};

AK_FUNCTION Philox4 philox_round(Philox4 c, uint32_t key0, uint32_t key1) {
    const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c.w0;
    const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c.w2;
    return {static_cast<uint32_t>(product1 >> 32) ^ c.w1 ^ key0, static_cast<uint32_t>(product1),
            static_cast<uint32_t>(product0 >> 32) ^ c.w3 ^ key1, static_cast<uint32_t>(product0)};
}

// Several counters under one key.
template <int count>
AK_FUNCTION void philox_all(Philox4 (&counters)[count], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < kPhiloxRounds; ++round) {
        for (Philox4& counter : counters) {
            counter = philox_round(counter, key0, key1);
        }
        key0 += kPhiloxWeyl0;
        key1 += kPhiloxWeyl1;
    }
}

AK_FUNCTION Philox4 philox(Philox4 counter, uint32_t key0, uint32_t key1) {
    Philox4 counters[1] = {counter};
    philox_all(counters, key0, key1);
    return counters[0];
}

// The counter of the elements 4 group .. 4 group + 3 in a draw.
AK_FUNCTION Philox4 philox_counter(uint64_t group, uint64_t draw) {
    return {static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), static_cast<uint32_t>(draw),
            static_cast<uint32_t>(draw >> 32)};
}

AK_FUNCTION Philox4 philox_group(uint64_t group, uint64_t seed, uint64_t draw) {
    return philox(philox_counter(group, draw), static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace advkernels
