"""The step of an l2 attack and its projections."""

import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.reference.l2 import LANES
from advkernels.backends.triton.bounds import bound, pack, per_channel
from advkernels.backends.triton.elements import load, multiply, project, store
from advkernels.backends.triton.geometry import offset, sample_geometry, sample_groups
from advkernels.backends.triton.images import launch_images
from advkernels.backends.triton.l2 import UNROLL, add_squares, root
from advkernels.bounds import Rows


@triton.jit
def scaled_gradient(grad, grad_offset, inside, alpha):
    """float64 alpha g, exact."""
    return multiply(alpha.to(tl.float64), load(grad, grad_offset, inside).to(tl.float64))


@triton.jit
def l2_moved(d, ascent, alpha, inverse, known):
    """float32 d + |alpha| ascent / norm(ascent), or d where that norm is none."""
    step = multiply(tl.abs(alpha.to(tl.float64)), multiply(ascent, inverse))
    return d + tl.where(known, step, 0.0).to(tl.float32)


@triton.jit
def _l2_step_kernel(
    delta,
    grad,
    x,
    out,
    mask,
    mask_stride,
    groups,
    places,
    alpha0,
    alpha1,
    alpha2,
    alpha3,
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
    grad_n,
    grad_c,
    grad_s,
    x_n,
    x_c,
    x_s,
    out_n,
    out_c,
    out_s,
    ALPHA: tl.constexpr,
    EPSILON: tl.constexpr,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    ORDER: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    count = tl.cast(groups, tl.int64)
    moving = count  # groups of a sample that takes the step
    if mask is not None:
        moving = tl.where(tl.load(mask + n * mask_stride) != 0, count, 0)

    sums = tl.zeros((ROWS, WIDTH), tl.float64)
    for first in tl.range(0, moving, ROWS, loop_unroll_factor=UNROLL):
        inside, element, c, s = sample_groups(n, first, groups, places, ORDER, WIDTH, ROWS, WIDE, CHANNELS)
        a = bound(alpha0, alpha1, alpha2, alpha3, n, c, CHANNELS, inside, ALPHA)
        grad_offset = offset(element, n, c, s, grad_n, grad_c, grad_s, ORDER)
        sums = add_squares(sums, scaled_gradient(grad, grad_offset, inside, a), inside)
    norm = root(sums)
    known = (norm > 0) & (norm < float("inf"))
    inverse = 1.0 / norm

    sums = tl.zeros((ROWS, WIDTH), tl.float64)
    for first in tl.range(0, moving, ROWS, loop_unroll_factor=UNROLL):
        inside, element, c, s = sample_groups(n, first, groups, places, ORDER, WIDTH, ROWS, WIDE, CHANNELS)
        a = bound(alpha0, alpha1, alpha2, alpha3, n, c, CHANNELS, inside, ALPHA)
        eps = bound(epsilon0, epsilon1, epsilon2, epsilon3, n, c, CHANNELS, inside, EPSILON)
        grad_offset = offset(element, n, c, s, grad_n, grad_c, grad_s, ORDER)
        ascent = scaled_gradient(grad, grad_offset, inside, a)
        d = load(delta, offset(element, n, c, s, delta_n, delta_c, delta_s, ORDER), inside)
        moved = l2_moved(d, ascent, a, inverse, known)
        axis = tl.where(eps > 0, 1.0 / eps.to(tl.float64), 0.0)
        sums = add_squares(sums, multiply(moved.to(tl.float64), axis), inside)
    length = root(sums)
    shrink = tl.where(length > 1, 1.0 / length, 1.0)

    for first in tl.range(0, count, ROWS):
        inside, element, c, s = sample_groups(n, first, groups, places, ORDER, WIDTH, ROWS, WIDE, CHANNELS)
        a = bound(alpha0, alpha1, alpha2, alpha3, n, c, CHANNELS, inside, ALPHA)
        eps = bound(epsilon0, epsilon1, epsilon2, epsilon3, n, c, CHANNELS, inside, EPSILON)
        low = bound(lower0, lower1, lower2, lower3, n, c, CHANNELS, inside, LOWER)
        high = bound(upper0, upper1, upper2, upper3, n, c, CHANNELS, inside, UPPER)
        grad_offset = offset(element, n, c, s, grad_n, grad_c, grad_s, ORDER)
        ascent = scaled_gradient(grad, grad_offset, inside, a)
        delta_offset = offset(element, n, c, s, delta_n, delta_c, delta_s, ORDER)
        d = load(delta, delta_offset, inside)
        image = load(x, offset(element, n, c, s, x_n, x_c, x_s, ORDER), inside)
        moved = l2_moved(d, ascent, a, inverse, known)
        shrunk = multiply(moved.to(tl.float64), tl.where(eps > 0, shrink, 0.0)).to(tl.float32)
        stepped = project(shrunk, image, low, high)
        written = inside
        if mask is not None:
            stepped = tl.where(moving > 0, stepped, d)
            written = inside & (moving > 0)
        stored = store(delta, delta_offset, stepped, written)
        if out is not None:
            store(out, offset(element, n, c, s, out_n, out_c, out_s, ORDER), image + stored, inside)


def l2_step_(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    bounds: Rows,
    mask: Tensor | None,
    out: Tensor | None,
) -> None:
    """One launch, one program a sample; see `reference.l2_step_`."""
    if x.numel() == 0:
        return
    values, forms = pack(bounds, 4, x)
    given = {"delta": delta, "grad": grad, "x": x, "out": out}
    shape = sample_geometry("l2_step_", given, per_channel(forms), LANES)
    others = (mask, 0 if mask is None else mask.stride(0))
    launch_images(_l2_step_kernel, shape, list(given.values()), others, values, forms)
