// l2_init_: a direction uniform on the sphere, a length uniform in [0, epsilon), projected into the box.
#include <torch/csrc/stable/library.h>

#include "../normal.h"
#include "clones.h"
#include "l2.h"
#include "random.h"

namespace advkernels {
namespace {

constexpr const char* kName = "l2_init_";

// The points of a tile's random bits.
struct PointsTile {
    std::array<double, kLanes> x, w;
};

// Two short loops and a rare branch: the processor overlaps the elements of a short loop.
AK_CLONES void point_tile(PointsTile& points, const uint32_t* __restrict bits, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const NormalPoint p = normal_point(bits[i]);
        points.x[i] = p.x;
        points.w[i] = p.w;
    }
}

AK_CLONES void central_tile(float* __restrict z, const PointsTile& points, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        z[i] = normal_central({points.x[i], points.w[i]});
    }
}

void normal_tile(float* z, const uint32_t* bits, int64_t count) {
    PointsTile points;
    point_tile(points, bits, count);
    central_tile(z, points, count);
    for (int64_t i = 0; i < count; ++i) {
        const NormalPoint p{points.x[i], points.w[i]};
        if (!p.is_central()) {
            z[i] = normal_tail(p);
        }
    }
}

AK_CLONES void square_tile(double* __restrict sums, const float* __restrict z, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        sums[i] += static_cast<double>(z[i]) * static_cast<double>(z[i]);
    }
}

AK_CLONES void init_tile(float* __restrict d, const float* __restrict x, int64_t count, double factor, Bounds bounds) {
    for (int64_t i = 0; i < count; ++i) {
        d[i] = l2_init(d[i], x[i], factor, bounds);
    }
}

// d, x: the sample in a row; d is blank
void init_sample(const InitArguments& a, int64_t sample, float* d, const float* x) {
    const int64_t number = a.sample_number(sample), size = a.loop.sample_size;
    LaneSums sums{};
    BitsBuffer bits;
    for_each_tile(0, size, kLanes, kLanes, [&](int64_t first, int64_t count) {
        normal_tile(d + first, random_bits(bits, number * size + first, count, a.seed, a.draw), count);
        square_tile(sums.data(), d + first, count);
    });
    const double factor = l2_radius(number, a.seed, a.draw) / lane_norm(sums, size);
    for_each_piece(a.loop, a.per_channel, [&](int64_t first, int64_t count, int64_t channel) {
        init_tile(d + first, x + first, count, factor, a.bounds.at(sample, channel));
    });
}

void init_range(const InitArguments& a, int64_t first, int64_t last) {
    const Loop& loop = a.loop;
    const int64_t size = loop.sample_size;
    const SampleBuffers buffers(size, 3);
    for (int64_t sample = first; sample < last && size > 0; ++sample) {
        const int64_t begin = sample * size;
        const float* x = load(loop, a.x, begin, size, buffers[0]);
        float* d = blank(loop, a.delta, begin, size, buffers[1]);
        init_sample(a, sample, d, x);
        store(loop, a.delta, begin, size, d);
        if (a.has_out) {
            store_sum(loop, a.out, x, a.delta, begin, size, buffers[1], buffers[2]);
        }
    }
}

template <typename Given>
void l2_init_cpu(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                 std::optional<Tensor> out) {
    check_init(kName, delta, x, state, sample_index, out);
    const GivenBounds given(kName, bounds, kBounds - 1, x);
    const InitArguments arguments = init_arguments(logical_loop(x), delta, x, state, given.tables, sample_index, out);
    parallel_samples(arguments.loop, [&](int64_t first, int64_t last) { init_range(arguments, first, last); });
    advance_draw(state);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("l2_init_.values", TORCH_BOX(&l2_init_cpu<std::vector<double>>));
    library.impl("l2_init_.tensors", TORCH_BOX(&l2_init_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
