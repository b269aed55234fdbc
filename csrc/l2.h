// The arithmetic of the l2 operations, for host and device. No torch.
// A sample's norm is a sum of squares in one order, so that every backend has the same bits: the sample's elements, in
// C, H, W order, go round kLanes float64 sums; then the upper half is added to the lower until one is left.
#pragma once

#include <cmath>
#include <limits>

#include "philox.h"

namespace advkernels {

constexpr int kLanes = 1024;
constexpr uint64_t kRadiusGroup = uint64_t{1} << 62;  // no element's group of random words

// Two steps of the sum over lanes: the upper half onto the lower, twice; the sum that comes to place i of a quarter.
AK_FUNCTION double fold_lanes(const double* sums, int i, int quarter) {
    return (sums[i] + sums[i + 2 * quarter]) + (sums[i + quarter] + sums[i + 3 * quarter]);
}

// alpha g: the way up, in a space where the ball is round
AK_FUNCTION double l2_ascent(float g, float alpha) { return static_cast<double>(alpha) * static_cast<double>(g); }

// 1 / norm of a sample's ascent; 0 where it has no direction, of zeros or with a NaN.
AK_FUNCTION double l2_inverse(double norm) {
    return norm > 0.0 && norm < std::numeric_limits<double>::infinity() ? 1.0 / norm : 0.0;
}

AK_FUNCTION float l2_step(float d, float g, float alpha, double inverse) {
    const double step = fabs(static_cast<double>(alpha)) * (l2_ascent(g, alpha) * inverse);
    return d + static_cast<float>(inverse > 0.0 ? step : 0.0);
}

// 1 / epsilon: d times it is at most 1 long within the ball
AK_FUNCTION double l2_axis(float epsilon) { return epsilon > 0.0f ? 1.0 / static_cast<double>(epsilon) : 0.0; }

// What a step of this length is multiplied with to lie in the ball; 1 for a NaN.
AK_FUNCTION double l2_shrink(double length) { return length > 1.0 ? 1.0 / length : 1.0; }

// Into the ball, then into the box.
AK_FUNCTION float l2_project(float d, float x, double shrink, Bounds b) {
    const double factor = b.epsilon > 0.0f ? shrink : 0.0;
    return project(static_cast<float>(static_cast<double>(d) * factor), x, b.lower, b.upper);
}

// In [0, 1), of a sample's number.
AK_FUNCTION double l2_radius(int64_t sample_number, uint64_t seed, uint64_t draw) {
    const uint32_t bits = philox_group(static_cast<uint64_t>(sample_number) | kRadiusGroup, seed, draw).w0;
    return static_cast<double>(static_cast<int32_t>(bits >> 8)) * 0x1p-24;
}

// Of a normal number and its sample's factor, radius / norm.
AK_FUNCTION float l2_init(float z, float x, double factor, Bounds b) {
    const double d = static_cast<double>(z) * factor * static_cast<double>(b.epsilon);
    return project(static_cast<float>(d), x, b.lower, b.upper);
}

}  // namespace advkernels
