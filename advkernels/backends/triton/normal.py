"""Normal numbers from random bits, in the operations and the order of `reference/normal.py`."""

import triton
import triton.language as tl

from advkernels.backends.reference import normal as reference
from advkernels.backends.triton.elements import float64, multiply

ATANH = tl.constexpr(reference._ATANH)
CENTRAL = tl.constexpr(reference._CENTRAL)
TAIL = tl.constexpr(reference._TAIL)
LN2 = tl.constexpr(reference._LN2)
SQRT2 = tl.constexpr(reference._SQRT2)
SQRT_HALF = tl.constexpr(reference._SQRT_HALF)


@triton.jit
def polynomial(COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr, t):
    """Horner's rule in float64, highest power first."""
    value = tl.zeros_like(t) + COEFFICIENTS[0]
    for i in tl.static_range(1, COUNT):
        value = multiply(value, t) + COEFFICIENTS[i]
    return value


@triton.jit
def logarithm(y):
    """float64 natural logarithm of normal numbers above 0."""
    bits = y.to(tl.int64, bitcast=True)
    fraction = ((bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000).to(tl.float64, bitcast=True)  # in [1/2, 1)
    low = fraction < float64(SQRT_HALF)
    m = tl.where(low, fraction + fraction, fraction)
    e = ((bits >> 52) - 1022 - low.to(tl.int64)).to(tl.float64)
    s = (m - 1.0) / (m + 1.0)
    series = polynomial(ATANH, 7, multiply(s, s))
    return multiply(e, float64(LN2)) + multiply(s + s, series)


@triton.jit
def normal(bits):
    """float32 standard normal number of each uint32."""
    x = multiply((bits >> 8).to(tl.float64) + 0.5, float64(1.1920928955078125e-07)) - 1.0  # 2^-23
    w = -logarithm(multiply(1.0 - x, 1.0 + x))
    z = tl.where(w < 5.0, polynomial(CENTRAL, 9, w - 2.5), polynomial(TAIL, 9, tl.sqrt(w) - 3.0))
    return multiply(multiply(z, x), float64(SQRT2)).to(tl.float32)
