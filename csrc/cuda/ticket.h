// A counter that every block of a launch reads and the last one advances, in one launch and one int64. No torch.
//
// The upper bits of the counter count the blocks that have read it; the block that takes the last ticket puts back the
// advanced counter. So nobody advances it before all have read it, and nothing has to be cleared between launches.
#pragma once

#include "../formulas.h"

namespace advkernels::cuda {

template <int bits>
struct Ticket {
    static constexpr int64_t kOne = int64_t{1} << bits;
    static constexpr int64_t kMaxBlocks = (int64_t{1} << (63 - bits)) - 1;

    // What the counter counts, in its lower bits.
    AK_FUNCTION static int64_t count(int64_t counter) { return counter & (kOne - 1); }

    // One thread of each of the `blocks`, once, after its block has read the counter.
    AK_FUNCTION static void take(int64_t* counter, int64_t blocks) {
        if (add(counter, kOne) >> bits == blocks - 1) {
            add(counter, 1 - blocks * kOne);
        }
    }

  private:
    AK_FUNCTION static int64_t add(int64_t* counter, int64_t value) {
#if defined(__CUDA_ARCH__)
        return static_cast<int64_t>(
            atomicAdd(reinterpret_cast<unsigned long long*>(counter), static_cast<unsigned long long>(value)));
#else
        const int64_t before = *counter;
        *counter += value;
        return before;
#endif
    }
};

// A counter that other blocks take tickets of while this one reads it.
AK_FUNCTION int64_t read_counter(const int64_t* counter) { return *static_cast<const volatile int64_t*>(counter); }

}  // namespace advkernels::cuda
