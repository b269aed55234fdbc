#include "random.h"

#include "../philox.h"
#include "philox_avx2.h"

namespace advkernels {
namespace {

void philox_tile_scalar(uint32_t* bits, uint64_t first_group, int64_t groups, uint64_t seed, uint64_t draw) {
    for (int64_t i = 0; i < groups; ++i) {
        const Philox4 words = philox_group(first_group + static_cast<uint64_t>(i), seed, draw);
        bits[4 * i] = words.w0;
        bits[4 * i + 1] = words.w1;
        bits[4 * i + 2] = words.w2;
        bits[4 * i + 3] = words.w3;
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void philox_tile_avx2(uint32_t* bits, uint64_t first_group, int64_t groups,
                                                      uint64_t seed, uint64_t draw) {
    for (int64_t i = 0; i < groups; i += 4) {
        philox_avx2(bits + 4 * i, first_group + static_cast<uint64_t>(i), seed, draw);
    }
}

const auto philox_tile = __builtin_cpu_supports("avx2") ? philox_tile_avx2 : philox_tile_scalar;
#else
constexpr auto philox_tile = philox_tile_scalar;
#endif

}  // namespace

const uint32_t* random_bits(BitsBuffer& buffer, int64_t index, int64_t count, uint64_t seed, uint64_t draw) {
    const int64_t lane = index & 3;
    philox_tile(buffer.data(), static_cast<uint64_t>(index >> 2), (lane + count + 3) / 4, seed, draw);
    return buffer.data() + lane;
}

}  // namespace advkernels
