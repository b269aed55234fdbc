// What the random starts draw from: the state on the device and the number of each sample, for host and device.
#pragma once

#include "../philox.h"
#include "ticket.h"

namespace advkernels::cuda {

using DrawTicket = Ticket<48>;  // 2^48 draws, 32767 blocks

struct PhiloxKey {
    uint64_t seed, draw;
};

struct DrawState {
    const int64_t* seed;
    int64_t* draw;
    const int64_t* sample_index;
    int64_t sample_index_stride;

    AK_FUNCTION PhiloxKey read_key() const {
        return {static_cast<uint64_t>(*seed), static_cast<uint64_t>(DrawTicket::count(read_counter(draw)))};
    }
    // One thread of each of the `blocks`, once, after its block has read the key.
    AK_FUNCTION void take_ticket(int64_t blocks) const { DrawTicket::take(draw, blocks); }
    // The number that a sample's random numbers hang on.
    AK_FUNCTION int64_t sample_number(int64_t sample) const {
        return sample_index == nullptr ? sample : sample_index[sample * sample_index_stride];
    }
};

// Of the group of four that an element is in.
AK_FUNCTION Philox4 counter_of(PhiloxKey key, int64_t logical_index) {
    return philox_counter(static_cast<uint64_t>(logical_index) >> 2, key.draw);
}

AK_FUNCTION Philox4 random_words(PhiloxKey key, int64_t logical_index) {
    return philox_group(static_cast<uint64_t>(logical_index) >> 2, key.seed, key.draw);
}

AK_FUNCTION uint32_t lane_of(Philox4 words, int64_t logical_index) {
    const int64_t lane = logical_index & 3;
    return lane == 0 ? words.w0 : lane == 1 ? words.w1 : lane == 2 ? words.w2 : words.w3;
}

}  // namespace advkernels::cuda
