// l2_step_, a block's share of a launch in phases, for host and device. No torch.
#pragma once

#include "l2.h"

namespace advkernels::cuda {

struct L2Step {
    enum { kDelta, kGrad, kX, kOut, kCount };
    Samples<kCount> samples;
    const bool* mask;
    int64_t mask_stride;
    bool has_out;

    AK_FUNCTION bool active(int64_t sample) const { return mask == nullptr || mask[sample * mask_stride]; }
    AK_FUNCTION DType delta_type() const { return samples.operands.arrays[kDelta].type; }
};

// 1 / epsilon of the last epsilon asked for: a division is long, and neighbours share it.
struct Axis {
    float epsilon = 0.0f;
    double axis = 0.0;

    AK_FUNCTION double of(float wanted) {
        if (wanted != epsilon) {
            epsilon = wanted;
            axis = l2_axis(wanted);
        }
        return axis;
    }
};

// First phase: the squares of alpha g.
template <Path path>
AK_FUNCTION void sum_ascent(const L2Step& a, const Bounds* staged, double* sums, int64_t sample, int thread,
                            int threads) {
    sum_lanes<path>(a.samples.sample_size, sums, thread, threads, [&](int64_t element, double (&mine)[4]) {
        const Floats<4> g = read_quad<path>(a.samples, L2Step::kGrad, sample, element);
        visit_quad<path>(a.samples, staged, sample, element, [&](int j, Bounds b) {
            const double ascent = l2_ascent(g.values[j], b.alpha);
            mine[j] += ascent * ascent;
        });
    });
}

// Second phase: the squares of the stepped delta as a part of epsilon. `inverse` is 1 / the norm of the ascent.
template <Path path>
AK_FUNCTION void sum_length(const L2Step& a, const Bounds* staged, double* sums, int64_t sample, double inverse,
                            int thread, int threads) {
    Axis axis;
    sum_lanes<path>(a.samples.sample_size, sums, thread, threads, [&](int64_t element, double (&mine)[4]) {
        const Floats<4> g = read_quad<path>(a.samples, L2Step::kGrad, sample, element);
        const Floats<4> d = read_quad<path>(a.samples, L2Step::kDelta, sample, element);
        visit_quad<path>(a.samples, staged, sample, element, [&](int j, Bounds b) {
            const float stepped = l2_step(d.values[j], g.values[j], b.alpha, inverse);
            const double part = static_cast<double>(stepped) * axis.of(b.epsilon);
            mine[j] += part * part;
        });
    });
}

// Third phase: steps again, projects and writes. Each element is read and written by one thread.
template <Path path>
AK_FUNCTION void write_step(const L2Step& a, const Bounds* staged, int64_t sample, double inverse, double shrink,
                            int thread, int threads) {
    for (int quad = thread; quad < kQuads; quad += threads) {
        for_each_quad<path>(a.samples.sample_size, quad, [&](int64_t element) {
            const Floats<4> g = read_quad<path>(a.samples, L2Step::kGrad, sample, element);
            const Floats<4> x = read_quad<path>(a.samples, L2Step::kX, sample, element);
            Floats<4> d = read_quad<path>(a.samples, L2Step::kDelta, sample, element);
            visit_quad<path>(a.samples, staged, sample, element, [&](int j, Bounds b) {
                const float stepped = l2_step(d.values[j], g.values[j], b.alpha, inverse);
                d.values[j] = l2_project(stepped, x.values[j], shrink, b);
            });
            write_quad<path>(a.samples, L2Step::kDelta, sample, element, d);
            if (a.has_out) {
                write_sum<path>(a.samples, L2Step::kOut, sample, element, x, d, a.delta_type());
            }
        });
    }
}

// The only phase of a masked sample: delta stays.
template <Path path>
AK_FUNCTION void write_masked(const L2Step& a, int64_t sample, int thread, int threads) {
    for (int quad = thread; quad < kQuads && a.has_out; quad += threads) {
        for_each_quad<path>(a.samples.sample_size, quad, [&](int64_t element) {
            const Floats<4> x = read_quad<path>(a.samples, L2Step::kX, sample, element);
            const Floats<4> d = read_quad<path>(a.samples, L2Step::kDelta, sample, element);
            write_sum<path>(a.samples, L2Step::kOut, sample, element, x, d, a.delta_type());
        });
    }
}

template <Path path, typename Block>
AK_FUNCTION void l2_step_sample(const L2Step& a, const Bounds* staged, double* sums, int64_t sample,
                                const Block& block) {
    if (!a.active(sample)) {
        block([&](int thread, int threads) { write_masked<path>(a, sample, thread, threads); });
        return;
    }
    block([&](int thread, int threads) { sum_ascent<path>(a, staged, sums, sample, thread, threads); });
    const double inverse = l2_inverse(block_norm(sums, block));
    block([&](int thread, int threads) { sum_length<path>(a, staged, sums, sample, inverse, thread, threads); });
    const double shrink = l2_shrink(block_norm(sums, block));
    block([&](int thread, int threads) { write_step<path>(a, staged, sample, inverse, shrink, thread, threads); });
}

// `bounds` is planned before; out may be absent.
inline L2Step plan_l2_step(const View& delta, const View& grad, const View& x, const View& out, const BoundSet& bounds,
                           const bool* mask, int64_t mask_stride) {
    return {plan_samples<L2Step::kCount>({delta, grad, x, out}, x, bounds), mask, mask_stride, out.present};
}

}  // namespace advkernels::cuda
