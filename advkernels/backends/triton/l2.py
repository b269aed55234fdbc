"""The norm of a sample in float64, summed in the order of `reference.l2.l2_norm`."""

import triton
import triton.language as tl

from advkernels.backends.triton.elements import multiply

UNROLL = tl.constexpr(4)  # rounds of a norm that are read together: a program has its sample to itself


@triton.jit
def add_squares(sums, v, inside):
    """The sums (ROWS, WIDTH), one a lane, with the square of the next element of each."""
    return sums + tl.where(inside, multiply(v, v), 0.0)


@triton.jit
def root(sums):
    """float64 norm of 1024 sums: upper half onto lower until one is left; a sum of two terms has one result."""
    sums = tl.reshape(sums, (1024,))
    for _ in tl.static_range(9):
        sums = tl.sum(tl.reshape(sums, (2, sums.shape[0] // 2)), 0)
    return tl.sqrt(tl.sum(sums, 0))
