// uniform_init_: U(-epsilon, epsilon) by Philox4x32-10, projected into the box, in one pass.
#include <torch/csrc/stable/library.h>

#include "../philox.h"
#include "clones.h"
#include "loop.h"
#include "philox_avx2.h"

namespace advkernels {
namespace {

constexpr const char* kName = "uniform_init_";
constexpr int64_t kBits = kTile + 32;  // a tile may start inside a group; four groups are made at a time

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

AK_CLONES void uniform_init_tile(float* __restrict d, const uint32_t* __restrict bits, const float* __restrict x,
                                 int64_t count, Bounds bounds) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = uniform_init(bits[i], x[i], bounds);
    }
}

struct Arguments {
    Loop loop;
    Operand delta, x, out;
    BoundTables bounds;
    const int64_t* sample_index;
    int64_t sample_index_stride;
    uint64_t seed, draw;
    bool has_out, per_sample, per_channel;

    // The element's index in N, C, H, W order that its random number hangs on.
    int64_t logical_index(int64_t element) const {
        if (sample_index == nullptr) {
            return element;
        }
        const int64_t sample = element / loop.sample_size;
        return sample_index[sample * sample_index_stride] * loop.sample_size + element % loop.sample_size;
    }
};

void init_range(const Arguments& a, int64_t begin, int64_t end) {
    const Loop& loop = a.loop;
    const int64_t sample_segment = a.per_sample ? loop.sample_size : loop.numel;
    const int64_t bound_segment = a.per_channel ? loop.spatial_size : sample_segment;
    const int64_t segment = within_runs(bound_segment, {&a.delta, &a.x, &a.out});
    TileBuffer delta_buffer, x_buffer, out_buffer;
    std::array<uint32_t, kBits> bits;
    for_each_tile(begin, end, segment, kTile, [&](int64_t first, int64_t count) {
        const int64_t sample = a.per_sample ? first / loop.sample_size : 0;
        const int64_t channel = a.per_channel ? first / loop.spatial_size % loop.channels : 0;
        const Bounds bounds = a.bounds.at(sample, channel);
        const int64_t index = a.logical_index(first);
        const int64_t lane = index & 3;
        philox_tile(bits.data(), static_cast<uint64_t>(index >> 2), (lane + count + 3) / 4, a.seed, a.draw);
        const float* x = load(loop, a.x, first, count, x_buffer);
        float* d = blank(loop, a.delta, first, count, delta_buffer);
        uniform_init_tile(d, bits.data() + lane, x, count, bounds);
        store(loop, a.delta, first, count, d);
        if (a.has_out) {
            const float* stored = load(loop, a.delta, first, count, delta_buffer);
            float* adversarial = blank(loop, a.out, first, count, out_buffer);
            add_tile(adversarial, x, stored, count);
            store(loop, a.out, first, count, adversarial);
        }
    });
}

template <typename Given>
void uniform_init_cpu(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                      std::optional<Tensor> out) {
    check_uniform_init(kName, delta, x, state, sample_index, out);
    const GivenBounds given(kName, bounds, kBounds - 1, x);
    int64_t* seed = static_cast<int64_t*>(state.data_ptr());
    int64_t* draw = seed + state.stride(0);
    const Loop loop = logical_loop(x);
    const Arguments arguments{loop,
                              operand(loop, delta),
                              operand(loop, x),
                              out ? operand(loop, *out) : Operand{},
                              given.tables,
                              sample_index ? static_cast<const int64_t*>(sample_index->data_ptr()) : nullptr,
                              sample_index ? sample_index->stride(0) : 0,
                              static_cast<uint64_t>(*seed),
                              static_cast<uint64_t>(*draw),
                              out.has_value(),
                              sample_index.has_value() || given.tables.per_sample(),
                              given.tables.per_channel()};
    torch::stable::parallel_for(0, loop.numel, kGrain,
                                [&](int64_t begin, int64_t end) { init_range(arguments, begin, end); });
    *draw += 1;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("uniform_init_.values", TORCH_BOX(&uniform_init_cpu<std::vector<double>>));
    library.impl("uniform_init_.tensors", TORCH_BOX(&uniform_init_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
