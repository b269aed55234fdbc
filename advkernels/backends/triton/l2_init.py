"""The random start inside the l2 ball."""

import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.reference.l2 import LANES
from advkernels.backends.triton.bounds import bound, pack, per_channel
from advkernels.backends.triton.elements import float64, load, multiply, project, store
from advkernels.backends.triton.geometry import offset, sample_geometry, sample_groups
from advkernels.backends.triton.images import launch_images
from advkernels.backends.triton.l2 import add_squares, root
from advkernels.backends.triton.normal import normal
from advkernels.backends.triton.philox import philox, random_bits
from advkernels.bounds import Rows

RADIUS_GROUP = tl.constexpr(2**62)


@triton.jit
def normal_direction(number, first, groups, seed, draw, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """float64 (ROWS, WIDTH): normal numbers of the elements of sample `number`, from its group `first` on."""
    group = number * groups + first + tl.arange(0, ROWS)[:, None]
    return normal(random_bits(group * WIDTH, seed, draw, WIDTH)).to(tl.float64)


@triton.jit
def random_radius(number, seed, draw):
    """float64 in [0, 1), from the sample's own bits."""
    word, _, _, _ = philox(number | RADIUS_GROUP, seed, draw)
    return multiply((word >> 8).to(tl.float64), float64(5.9604644775390625e-08))  # 2^-24


@triton.jit
def _l2_init_kernel(
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
    n = tl.program_id(0).to(tl.int64)
    count = tl.cast(groups, tl.int64)
    number = n
    if sample_index is not None:
        number = tl.load(sample_index + n)
    seed = tl.load(state)
    draw = tl.load(state + 1)

    sums = tl.zeros((ROWS, WIDTH), tl.float64)
    for first in tl.range(0, count, ROWS):
        inside, _, _, _ = sample_groups(n, first, groups, places, ORDER, WIDTH, ROWS, WIDE, CHANNELS)
        z = normal_direction(number, first, groups, seed, draw, WIDTH, ROWS)
        sums = add_squares(sums, z, inside)
    factor = random_radius(number, seed, draw) / root(sums)

    for first in tl.range(0, count, ROWS):
        inside, element, c, s = sample_groups(n, first, groups, places, ORDER, WIDTH, ROWS, WIDE, CHANNELS)
        eps = bound(epsilon0, epsilon1, epsilon2, epsilon3, n, c, CHANNELS, inside, EPSILON)
        low = bound(lower0, lower1, lower2, lower3, n, c, CHANNELS, inside, LOWER)
        high = bound(upper0, upper1, upper2, upper3, n, c, CHANNELS, inside, UPPER)
        image = load(x, offset(element, n, c, s, x_n, x_c, x_s, ORDER), inside)
        z = normal_direction(number, first, groups, seed, draw, WIDTH, ROWS)
        noise = multiply(multiply(z, factor), eps.to(tl.float64)).to(tl.float32)
        start = project(noise, image, low, high)
        stored = store(delta, offset(element, n, c, s, delta_n, delta_c, delta_s, ORDER), start, inside)
        if out is not None:
            store(out, offset(element, n, c, s, out_n, out_c, out_s, ORDER), image + stored, inside)


def l2_init_(
    delta: Tensor,
    x: Tensor,
    state: Tensor,
    bounds: Rows,
    sample_index: Tensor | None,
    out: Tensor | None,
) -> None:
    """One launch, one program a sample, and a second one that advances the draw counter; see `reference.l2_init_`."""
    if x.numel() > 0:
        values, forms = pack(bounds, 3, x)
        given = {"delta": delta, "x": x, "out": out}
        shape = sample_geometry("l2_init_", given, per_channel(forms), LANES)
        others = (state, None if sample_index is None else sample_index.contiguous())
        launch_images(_l2_init_kernel, shape, list(given.values()), others, values, forms)
    state[1].add_(1)
