// sign_step_: the step of an l-inf attack and its projections, in one pass.
#include <torch/csrc/stable/library.h>

#include "arguments.h"
#include "clones.h"

namespace advkernels {
namespace {

constexpr const char* kName = "sign_step_";

AK_CLONES void sign_step_tile(float* __restrict d, const float* __restrict g, const float* __restrict x, int64_t count,
                              Bounds bounds) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = sign_step(d[i], g[i], x[i], bounds);
    }
}

// The bounds of every element of a tile whose channels are innermost.
struct BoundsTile {
    TileBuffer alpha, epsilon, lower, upper;
    int64_t sample = -1;
    int64_t channel = -1;  // of the first element
};

AK_CLONES void sign_step_tile_per_element(float* __restrict d, const float* __restrict g, const float* __restrict x,
                                          int64_t count, const BoundsTile& b) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = sign_step(d[i], g[i], x[i], {b.alpha[i], b.epsilon[i], b.lower[i], b.upper[i]});
    }
}

// No tile is converted or visited twice, so that none needs to be small.
bool in_place(const StepArguments& a) {
    const auto lends = [&](const Operand& tensor) { return tensor.type == ScalarType::Float && dense(a.loop, tensor); };
    return !a.has_out && lends(a.delta) && lends(a.grad) && lends(a.x);
}

void fill(BoundsTile& tile, const StepArguments& a, int64_t sample, int64_t channel) {
    if (tile.sample == sample && tile.channel == channel) {
        return;
    }
    tile.sample = sample;
    tile.channel = channel;
    for (int64_t i = 0, c = channel; i < kTile; ++i, c = c + 1 == a.loop.channels ? 0 : c + 1) {
        const Bounds b = a.bounds.at(sample, c);
        tile.alpha[i] = b.alpha;
        tile.epsilon[i] = b.epsilon;
        tile.lower[i] = b.lower;
        tile.upper[i] = b.upper;
    }
}

void step_range(const StepArguments& a, int64_t begin, int64_t end) {
    const Loop& loop = a.loop;
    const bool innermost = loop.channels_last && a.per_channel;
    const int64_t sample_segment = a.per_sample ? loop.sample_size : loop.numel;
    const int64_t bound_segment = !loop.channels_last && a.per_channel ? loop.spatial_size : sample_segment;
    const int64_t segment = within_runs(bound_segment, {&a.delta, &a.grad, &a.x, &a.out});
    const int64_t whole_pixels = loop.channels <= kTile ? kTile / loop.channels * loop.channels : kTile;
    const int64_t tile_size = innermost ? whole_pixels : in_place(a) ? segment : kTile;
    TileBuffer delta_buffer, grad_buffer, x_buffer, out_buffer;
    BoundsTile bounds_tile;
    for_each_tile(begin, end, segment, tile_size, [&](int64_t first, int64_t count) {
        const int64_t sample = a.per_sample ? first / loop.sample_size : 0;
        const float* x = load(loop, a.x, first, count, x_buffer.data());
        float* d = load_mutable(loop, a.delta, first, count, delta_buffer.data());
        if (a.active(sample)) {
            const float* g = load(loop, a.grad, first, count, grad_buffer.data());
            if (innermost) {
                fill(bounds_tile, a, sample, first % loop.channels);
                sign_step_tile_per_element(d, g, x, count, bounds_tile);
            } else {
                const int64_t channel = a.per_channel ? first / loop.spatial_size % loop.channels : 0;
                sign_step_tile(d, g, x, count, a.bounds.at(sample, channel));
            }
            store(loop, a.delta, first, count, d);
        }
        if (a.has_out) {
            store_sum(loop, a.out, x, a.delta, first, count, delta_buffer.data(), out_buffer.data());
        }
    });
}

template <typename Given>
void sign_step_cpu(Tensor delta, Tensor grad, Tensor x, Given bounds, std::optional<Tensor> mask,
                   std::optional<Tensor> out) {
    check_step(kName, delta, grad, x, mask, out);
    const GivenBounds given(kName, bounds, kBounds, x);
    const StepArguments arguments = step_arguments(memory_loop(delta), delta, grad, x, given.tables, mask, out);
    torch::stable::parallel_for(0, arguments.loop.numel, kGrain,
                                [&](int64_t begin, int64_t end) { step_range(arguments, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("sign_step_.values", TORCH_BOX(&sign_step_cpu<std::vector<double>>));
    library.impl("sign_step_.tensors", TORCH_BOX(&sign_step_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
