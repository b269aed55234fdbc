"""The step of an l-inf attack and its projections."""

import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.triton.bounds import bound, pack, per_plane
from advkernels.backends.triton.elements import load, maximum, minimum, multiply, project, store
from advkernels.backends.triton.geometry import coordinates, geometry, offset, program_groups
from advkernels.backends.triton.images import launch_images
from advkernels.bounds import Rows


@triton.jit
def _sign_step_kernel(
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
    group = program_groups(ROWS)
    inside = group < groups
    element = group * WIDTH + tl.arange(0, WIDTH)[None, :]
    n, c, s = coordinates(group, places, ORDER, WIDE, CHANNELS)
    a = bound(alpha0, alpha1, alpha2, alpha3, n, c, CHANNELS, inside, ALPHA)
    eps = bound(epsilon0, epsilon1, epsilon2, epsilon3, n, c, CHANNELS, inside, EPSILON)
    low = bound(lower0, lower1, lower2, lower3, n, c, CHANNELS, inside, LOWER)
    high = bound(upper0, upper1, upper2, upper3, n, c, CHANNELS, inside, UPPER)

    delta_offset = offset(element, n, c, s, delta_n, delta_c, delta_s, ORDER)
    d = load(delta, delta_offset, inside)
    g = load(grad, offset(element, n, c, s, grad_n, grad_c, grad_s, ORDER), inside)
    image = load(x, offset(element, n, c, s, x_n, x_c, x_s, ORDER), inside)
    sign = (g > 0).to(tl.float32) - (g < 0).to(tl.float32)
    moved = maximum(minimum(d + multiply(a, sign), eps), -eps)
    stepped = project(moved, image, low, high)
    if mask is not None:
        stepped = tl.where(tl.load(mask + n * mask_stride, inside) != 0, stepped, d)
    stored = store(delta, delta_offset, stepped, inside)
    if out is not None:
        store(out, offset(element, n, c, s, out_n, out_c, out_s, ORDER), image + stored, inside)


def sign_step_(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    bounds: Rows,
    mask: Tensor | None,
    out: Tensor | None,
) -> None:
    """One launch; see `reference.sign_step_`."""
    if x.numel() == 0:
        return
    values, forms = pack(bounds, 4, x)
    given = {"delta": delta, "grad": grad, "x": x, "out": out}
    shape = geometry("sign_step_", given, mask is not None or per_plane(forms))
    others = (mask, 0 if mask is None else mask.stride(0))
    launch_images(_sign_step_kernel, shape, list(given.values()), others, values, forms)
