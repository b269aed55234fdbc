// l2_step_: the step of an l2 attack and its projections: three passes over each sample, which stays in the cache.
#include <torch/csrc/stable/library.h>

#include "clones.h"
#include "l2.h"

namespace advkernels {
namespace {

constexpr const char* kName = "l2_step_";

AK_CLONES void ascent_tile(double* __restrict sums, const float* __restrict g, int64_t count, float alpha) {
    for (int64_t i = 0; i < count; ++i) {
        const double ascent = l2_ascent(g[i], alpha);
        sums[i] += ascent * ascent;
    }
}

// Steps, and sums how long delta is then, as a part of epsilon.
AK_CLONES void step_tile(double* __restrict sums, float* __restrict d, const float* __restrict g, int64_t count,
                         float alpha, double inverse, double axis) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = l2_step(d[i], g[i], alpha, inverse);
        const double part = static_cast<double>(d[i]) * axis;
        sums[i] += part * part;
    }
}

AK_CLONES void project_tile(float* __restrict d, const float* __restrict x, int64_t count, double shrink,
                            Bounds bounds) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = l2_project(d[i], x[i], shrink, bounds);
    }
}

// d, g, x: the sample in a row
void step_sample(const StepArguments& a, int64_t sample, float* d, const float* g, const float* x) {
    const int64_t size = a.loop.sample_size;
    LaneSums ascent{}, length{};
    for_each_piece(a.loop, a.per_channel, [&](int64_t first, int64_t count, int64_t channel) {
        ascent_tile(&ascent[first % kLanes], g + first, count, a.bounds.at(sample, channel).alpha);
    });
    const double inverse = l2_inverse(lane_norm(ascent, size));
    for_each_piece(a.loop, a.per_channel, [&](int64_t first, int64_t count, int64_t channel) {
        const Bounds b = a.bounds.at(sample, channel);
        step_tile(&length[first % kLanes], d + first, g + first, count, b.alpha, inverse, l2_axis(b.epsilon));
    });
    const double shrink = l2_shrink(lane_norm(length, size));
    for_each_piece(a.loop, a.per_channel, [&](int64_t first, int64_t count, int64_t channel) {
        project_tile(d + first, x + first, count, shrink, a.bounds.at(sample, channel));
    });
}

void step_range(const StepArguments& a, int64_t first, int64_t last) {
    const Loop& loop = a.loop;
    const int64_t size = loop.sample_size;
    const SampleBuffers buffers(size, 3);
    for (int64_t sample = first; sample < last && size > 0; ++sample) {
        const int64_t begin = sample * size;
        const float* x = load(loop, a.x, begin, size, buffers[0]);
        if (a.active(sample)) {
            float* d = load_mutable(loop, a.delta, begin, size, buffers[1]);
            step_sample(a, sample, d, load(loop, a.grad, begin, size, buffers[2]), x);
            store(loop, a.delta, begin, size, d);
        }
        if (a.has_out) {
            store_sum(loop, a.out, x, a.delta, begin, size, buffers[1], buffers[2]);
        }
    }
}

template <typename Given>
void l2_step_cpu(Tensor delta, Tensor grad, Tensor x, Given bounds, std::optional<Tensor> mask,
                 std::optional<Tensor> out) {
    check_step(kName, delta, grad, x, mask, out);
    const GivenBounds given(kName, bounds, kBounds, x);
    const StepArguments arguments = step_arguments(logical_loop(x), delta, grad, x, given.tables, mask, out);
    parallel_samples(arguments.loop, [&](int64_t first, int64_t last) { step_range(arguments, first, last); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("l2_step_.values", TORCH_BOX(&l2_step_cpu<std::vector<double>>));
    library.impl("l2_step_.tensors", TORCH_BOX(&l2_step_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
