// BatchNorm and the ReLU behind it, one element of a column at a time, for host and device. No torch.
#pragma once

#include <cmath>

#include "formulas.h"

namespace advkernels {

// Sum and sum of squares of a column's values: those of two sets of rows are added.
struct Moments {
    double sum, square;
};

// Adds in float32 and keeps beside the sum what it lost.
// Source: Kahan 1965, "Further remarks on reducing truncation errors".
AK_FUNCTION void add_compensated(float& sum, float& lost, float value) {
    const float wanted = value - lost, next = sum + wanted;
    lost = (next - sum) - wanted;
    sum = next;
}

// Of a power of two of values: neighbours first.
template <int count>
AK_FUNCTION float sum_pairs(const float* values) {
    if constexpr (count == 1) {
        return values[0];
    } else {
        return sum_pairs<count / 2>(values) + sum_pairs<count / 2>(values + count / 2);
    }
}

AK_FUNCTION double compensated(float sum, float lost) { return static_cast<double>(sum) - static_cast<double>(lost); }

// Of `rows` values, from the sums of value - shift and of its square: the shift, one of the values, keeps a mean that
// is large against the deviation out of the float32 squares.
AK_FUNCTION Moments shifted_moments(float shift, double sum, double square, int64_t rows) {
    const double k = shift, n = static_cast<double>(rows);
    return {sum + n * k, square + k * (2.0 * sum + n * k)};
}

AK_FUNCTION float mean_of(Moments m, int64_t rows) { return static_cast<float>(m.sum / static_cast<double>(rows)); }

// Biased. No rounding makes it negative.
AK_FUNCTION float variance_of(Moments m, int64_t rows) {
    const double n = static_cast<double>(rows), mean = m.sum / n, variance = m.square / n - mean * mean;
    return variance < 0.0 ? 0.0f : static_cast<float>(variance);
}

AK_FUNCTION float unbiased(float variance, int64_t rows) {
    return static_cast<float>(static_cast<double>(variance) * static_cast<double>(rows) /
                              static_cast<double>(rows - 1));
}

// Towards a batch's statistic; keep is 1 - momentum.
AK_FUNCTION float move_statistic(float running, float keep, float momentum, float statistic) {
    return running * keep + momentum * statistic;
}

AK_FUNCTION float inverse_deviation(float variance, float eps) { return 1.0f / sqrtf(variance + eps); }

// What an element needs to know of its column.
struct NormColumn {
    float mean, scale, bias;
};

AK_FUNCTION NormColumn norm_column(float mean, float variance, float weight, float bias, float eps) {
    return {mean, inverse_deviation(variance, eps) * weight, bias};
}

// The ReLU's input.
AK_FUNCTION float normalized(float x, NormColumn c) { return (x - c.mean) * c.scale + c.bias; }

// NaN stays, as in torch.relu.
AK_FUNCTION float relu(float value) { return value <= 0.0f ? 0.0f : value; }

// The gradient in front of the ReLU.
AK_FUNCTION float through_relu(float grad, float x, NormColumn c) { return normalized(x, c) <= 0.0f ? 0.0f : grad; }

// What the gradient of x needs besides where the batch's own statistics normalise: 1 / deviation, and the means over
// rows of g and of g z.
struct NormShares {
    float inverse, grad, grad_z;
};

AK_FUNCTION float norm_gradient(float grad, float x, NormColumn c, NormShares s) {
    return c.scale * ((grad - s.grad) - ((x - c.mean) * s.inverse) * s.grad_z);
}

}  // namespace advkernels
