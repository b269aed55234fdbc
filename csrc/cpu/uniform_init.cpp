// uniform_init_: U(-epsilon, epsilon) by Philox4x32-10, projected into the box, in one pass.
#include <torch/csrc/stable/library.h>

#include "arguments.h"
#include "clones.h"
#include "random.h"

namespace advkernels {
namespace {

constexpr const char* kName = "uniform_init_";

AK_CLONES void uniform_init_tile(float* __restrict d, const uint32_t* __restrict bits, const float* __restrict x,
                                 int64_t count, Bounds bounds) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = uniform_init(bits[i], x[i], bounds);
    }
}

// The element's index in N, C, H, W order that its random number hangs on.
int64_t logical_index(const InitArguments& a, int64_t element) {
    if (a.sample_index == nullptr) {
        return element;
    }
    const int64_t sample = element / a.loop.sample_size;
    return a.sample_number(sample) * a.loop.sample_size + element % a.loop.sample_size;
}

void init_range(const InitArguments& a, int64_t begin, int64_t end) {
    const Loop& loop = a.loop;
    const int64_t sample_segment = a.per_sample ? loop.sample_size : loop.numel;
    const int64_t bound_segment = a.per_channel ? loop.spatial_size : sample_segment;
    const int64_t segment = within_runs(bound_segment, {&a.delta, &a.x, &a.out});
    TileBuffer delta_buffer, x_buffer, out_buffer;
    BitsBuffer bits_buffer;
    for_each_tile(begin, end, segment, kTile, [&](int64_t first, int64_t count) {
        const int64_t sample = a.per_sample ? first / loop.sample_size : 0;
        const int64_t channel = a.per_channel ? first / loop.spatial_size % loop.channels : 0;
        const Bounds bounds = a.bounds.at(sample, channel);
        const uint32_t* bits = random_bits(bits_buffer, logical_index(a, first), count, a.seed, a.draw);
        const float* x = load(loop, a.x, first, count, x_buffer.data());
        float* d = blank(loop, a.delta, first, count, delta_buffer.data());
        uniform_init_tile(d, bits, x, count, bounds);
        store(loop, a.delta, first, count, d);
        if (a.has_out) {
            store_sum(loop, a.out, x, a.delta, first, count, delta_buffer.data(), out_buffer.data());
        }
    });
}

template <typename Given>
void uniform_init_cpu(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                      std::optional<Tensor> out) {
    check_init(kName, delta, x, state, sample_index, out);
    const GivenBounds given(kName, bounds, kBounds - 1, x);
    const InitArguments arguments = init_arguments(logical_loop(x), delta, x, state, given.tables, sample_index, out);
    torch::stable::parallel_for(0, arguments.loop.numel, kGrain,
                                [&](int64_t begin, int64_t end) { init_range(arguments, begin, end); });
    advance_draw(state);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("uniform_init_.values", TORCH_BOX(&uniform_init_cpu<std::vector<double>>));
    library.impl("uniform_init_.tensors", TORCH_BOX(&uniform_init_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
