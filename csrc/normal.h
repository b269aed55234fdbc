// Standard normal numbers of 32 random bits each, by the inverse of the normal distribution, for host and device.
// All of it is float64 with one rounding an operation, the logarithm too: no two libraries have one in common. No
// torch. Source: Giles 2012, "Approximating the erfinv function", table 5.
#pragma once

#include <cmath>

#include "formulas.h"

namespace advkernels {

AK_FUNCTION double double_from_bits(uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

AK_FUNCTION uint64_t bits_from_double(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Horner's rule, highest power first.
template <typename... Coefficients>
AK_FUNCTION double polynomial(double t, double value, Coefficients... rest) {
    ((value = value * t + rest), ...);
    return value;
}

// Natural logarithm of a normal number above 0, by its series in (m - 1) / (m + 1), to 1e-12.
AK_FUNCTION double series_log(double y) {
    const uint64_t bits = bits_from_double(y);
    const double fraction = double_from_bits((bits & 0x000FFFFFFFFFFFFFu) | 0x3FE0000000000000u);  // in [1/2, 1)
    const double exponent = double_from_bits((bits >> 52) | 0x4330000000000000u) - (0x1p52 + 1022.0);
    const bool low = fraction < 0x1.6a09e667f3bcdp-1;  // sqrt(1/2)
    const double m = low ? fraction * 2.0 : fraction;
    const double e = low ? exponent - 1.0 : exponent;
    const double s = (m - 1.0) / (m + 1.0);
    const double series = polynomial(s * s, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0);
    return e * 0x1.62e42fefa39efp-1 + s * 2.0 * series;
}

// Of 32 random bits, the point x in (-1, 1) whose probability they are, and w = -log(1 - x^2).
struct NormalPoint {
    double x, w;

    AK_FUNCTION bool is_central() const { return w < 5.0; }  // all but 3 in 1,000
};

AK_FUNCTION NormalPoint normal_point(uint32_t bits) {
    const double x = (static_cast<double>(static_cast<int32_t>(bits >> 8)) + 0.5) * 0x1p-23 - 1.0;
    return {x, -series_log((1.0 - x) * (1.0 + x))};
}

AK_FUNCTION float normal_central(NormalPoint p) {
    const double value = polynomial(p.w - 2.5, 2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06,
                                    0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941);
    return static_cast<float>(value * p.x * 0x1.6a09e667f3bcdp+0);
}

AK_FUNCTION float normal_tail(NormalPoint p) {
    const double value = polynomial(sqrt(p.w) - 3.0, -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
                                    0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682);
    return static_cast<float>(value * p.x * 0x1.6a09e667f3bcdp+0);
}

AK_FUNCTION float normal(uint32_t bits) {
    const NormalPoint p = normal_point(bits);
    return p.is_central() ? normal_central(p) : normal_tail(p);
}

}  // namespace advkernels
