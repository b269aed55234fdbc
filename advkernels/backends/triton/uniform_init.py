"""The random start inside the l-inf ball."""

import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.triton.bounds import bound, pack, per_plane
from advkernels.backends.triton.elements import load, multiply, project, store
from advkernels.backends.triton.geometry import (
    CHANNELS_LAST,
    coordinates,
    geometry,
    offset,
    program_groups,
)
from advkernels.backends.triton.images import launch_images
from advkernels.backends.triton.philox import random_bits
from advkernels.bounds import Rows


@triton.jit
def _logical_element(group, n, c, s, sample_index, places, inside, ORDER, WIDTH, CHANNELS):
    """(rows, 1) int64: number of a group's first element in N, C, H, W order, n replaced by sample_index[n]."""
    if sample_index is None and ORDER != CHANNELS_LAST:
        return group * WIDTH
    else:
        plane = tl.cast(places, tl.int64) * WIDTH
        number = n
        if sample_index is not None:
            number = tl.load(sample_index + n, inside)
        return (number * CHANNELS + c) * plane + s * WIDTH


@triton.jit
def _uniform_init_kernel(
    delta,
    x,
    out,
    state,
    sample_index,
    groups,
    places,
    epsilon0,
    epsilon1,
    epsilon2,
    epsilon3,
    lower0,
    lower1,
    lower2,
    lower3,
    upper0,
    upper1,
    upper2,
    upper3,
    delta_n,
    delta_c,
    delta_s,
    x_n,
    x_c,
    x_s,
    out_n,
    out_c,
    out_s,
    EPSILON: tl.constexpr,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    ORDER: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    group = program_groups(ROWS)
    inside = group < groups
    element = group * WIDTH + tl.arange(0, WIDTH)[None, :]
    n, c, s = coordinates(group, places, ORDER, WIDE, CHANNELS)
    eps = bound(epsilon0, epsilon1, epsilon2, epsilon3, n, c, CHANNELS, inside, EPSILON)
    low = bound(lower0, lower1, lower2, lower3, n, c, CHANNELS, inside, LOWER)
    high = bound(upper0, upper1, upper2, upper3, n, c, CHANNELS, inside, UPPER)

    logical = _logical_element(group, n, c, s, sample_index, places, inside, ORDER, WIDTH, CHANNELS)
    bits = random_bits(logical, tl.load(state), tl.load(state + 1), WIDTH)
    u = multiply((bits >> 8).to(tl.float32), 5.9604644775390625e-08)  # 2^-24
    noise = multiply(u, 2.0 * eps) - eps
    image = load(x, offset(element, n, c, s, x_n, x_c, x_s, ORDER), inside)
    start = project(noise, image, low, high)
    stored = store(delta, offset(element, n, c, s, delta_n, delta_c, delta_s, ORDER), start, inside)
    if out is not None:
        store(out, offset(element, n, c, s, out_n, out_c, out_s, ORDER), image + stored, inside)


def uniform_init_(
    delta: Tensor,
    x: Tensor,
    state: Tensor,
    bounds: Rows,
    sample_index: Tensor | None,
    out: Tensor | None,
) -> None:
    """One launch, and a second one that advances the draw counter; see `reference.uniform_init_`."""
    if x.numel() > 0:
        values, forms = pack(bounds, 3, x)
        given = {"delta": delta, "x": x, "out": out}
        shape = geometry("uniform_init_", given, sample_index is not None or per_plane(forms), numbered=True)
        others = (state, None if sample_index is None else sample_index.contiguous())
        launch_images(_uniform_init_kernel, shape, list(given.values()), others, values, forms)
    state[1].add_(1)
