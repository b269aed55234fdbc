// l2_init_, a block's share of a launch in phases, for host and device. No torch.
#pragma once

#include "../normal.h"
#include "draw.h"
#include "l2.h"

namespace advkernels::cuda {

struct L2Init {
    enum { kDelta, kX, kOut, kCount };
    Samples<kCount> samples;
    DrawState state;
    bool has_out;

    AK_FUNCTION DType delta_type() const { return samples.operands.arrays[kDelta].type; }
};

// The normal numbers of a quad, one Philox group where it is a vector. `first` is the sample's first logical index.
template <Path path>
AK_FUNCTION Floats<4> normal_quad(PhiloxKey key, int64_t first, int64_t element) {
    if constexpr (path != Path::Strided) {
        const Philox4 words = random_words(key, first + element);
        return {normal(words.w0), normal(words.w1), normal(words.w2), normal(words.w3)};
    } else {
        Floats<4> quad;
        for (int j = 0; j < 4; ++j) {
            const int64_t logical = first + element + j * kApart<path>;
            quad.values[j] = normal(lane_of(random_words(key, logical), logical));
        }
        return quad;
    }
}

// First phase: the squares of the normal numbers.
template <Path path>
AK_FUNCTION void sum_normal(const L2Init& a, PhiloxKey key, double* sums, int64_t first, int thread, int threads) {
    sum_lanes<path>(a.samples.sample_size, sums, thread, threads, [&](int64_t element, double (&mine)[4]) {
        const Floats<4> z = normal_quad<path>(key, first, element);
        for (int j = 0; j < 4; ++j) {
            const double value = within<path>(a.samples, element, j) ? static_cast<double>(z.values[j]) : 0.0;
            mine[j] += value * value;
        }
    });
}

// Second phase: the same numbers again, scaled, projected and written.
template <Path path>
AK_FUNCTION void write_init(const L2Init& a, const Bounds* staged, PhiloxKey key, int64_t sample, int64_t first,
                            double factor, int thread, int threads) {
    for (int quad = thread; quad < kQuads; quad += threads) {
        for_each_quad<path>(a.samples.sample_size, quad, [&](int64_t element) {
            const Floats<4> x = read_quad<path>(a.samples, L2Init::kX, sample, element);
            Floats<4> d = normal_quad<path>(key, first, element);
            visit_quad<path>(a.samples, staged, sample, element,
                             [&](int j, Bounds b) { d.values[j] = l2_init(d.values[j], x.values[j], factor, b); });
            write_quad<path>(a.samples, L2Init::kDelta, sample, element, d);
            if (a.has_out) {
                write_sum<path>(a.samples, L2Init::kOut, sample, element, x, d, a.delta_type());
            }
        });
    }
}

template <Path path, typename Block>
AK_FUNCTION void l2_init_sample(const L2Init& a, const Bounds* staged, PhiloxKey key, double* sums, int64_t sample,
                                const Block& block) {
    const int64_t number = a.state.sample_number(sample), first = number * a.samples.sample_size;
    block([&](int thread, int threads) { sum_normal<path>(a, key, sums, first, thread, threads); });
    const double factor = l2_radius(number, key.seed, key.draw) / block_norm(sums, block);
    block([&](int thread, int threads) { write_init<path>(a, staged, key, sample, first, factor, thread, threads); });
}

// `bounds` is planned before; out may be absent.
inline L2Init plan_l2_init(const View& delta, const View& x, const View& out, const BoundSet& bounds,
                           const DrawState& state) {
    return {plan_samples<L2Init::kCount>({delta, x, out}, x, bounds), state, out.present};
}

}  // namespace advkernels::cuda
