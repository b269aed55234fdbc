"""Normal numbers from random bits, by arithmetic that every backend repeats."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LN2, _SQRT2, _SQRT_HALF = math.log(2), math.sqrt(2), math.sqrt(0.5)
_ATANH = (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)
_CENTRAL = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def normal(bits: Tensor) -> Tensor:
    """Standard normal numbers of 32 random bits each, by the inverse of the normal distribution.

    x = 2 (bits >> 8 + 1/2) 2^-24 - 1, z = sqrt(2) erfinv(x) with Giles' two polynomials in w = -log(1 - x^2), all in
    float64, then rounded.

    bits: int64 in [0, 2**32)
    Returns: float32, the shape of bits
    Source: Giles 2012, "Approximating the erfinv function", table 5.
    """
    x = ((bits >> 8).double() + 0.5) * 2.0**-23 - 1
    w = -_log((1 - x) * (1 + x))
    central, tail = _polynomial(_CENTRAL, w - 2.5), _polynomial(_TAIL, w.sqrt() - 3)
    return (torch.where(w < 5, central, tail) * x * _SQRT2).float()


def _log(y: Tensor) -> Tensor:
    """Natural logarithm of normal float64 numbers above 0, by its series in (m - 1) / (m + 1), to 1e-12."""
    fraction, exponent = torch.frexp(y)  # in [1/2, 1)
    low = fraction < _SQRT_HALF
    m = torch.where(low, fraction * 2, fraction)
    e = (exponent - low.to(exponent.dtype)).double()
    s = (m - 1) / (m + 1)
    series = _polynomial(_ATANH, s * s)
    return e * _LN2 + (s * 2) * series


def _polynomial(coefficients: Sequence[float], t: Tensor) -> Tensor:
    """Horner's rule, highest power first."""
    value = torch.full_like(t, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * t + coefficient
    return value
