"""Mean and variance of columns, and the sums of gradients that BatchNorm followed by ReLU needs.

`RUN` rows are summed in float32, but for few rows, and all else in float64: by blocks of rows, which a second launch
adds up.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.triton.elements import load, multiply
from advkernels.backends.triton.normalization import inverse_deviation, through_relu
from advkernels.backends.triton.rows import (
    RUN,
    Tiles,
    add,
    launch_rows,
    load_column,
    merge,
    program_columns,
    store_partial,
    sum_runs,
    summing_tiles,
    tile,
)


@triton.jit
def _moments_kernel(
    partials,
    total,
    x,
    residual,
    rows,
    steps,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    FLOAT64: tl.constexpr,
):
    """Sum and sum of squares of a block of rows."""
    block, column = program_columns(COLUMNS, WIDTH)
    start = block * steps * HEIGHT
    # Squares of what the block's first row leaves: a large mean would swallow the variance in float32.
    first_row, there = tile(start, column, rows, COLUMNS, 1)
    shift = add(None, x, residual, first_row, there)
    shift = tl.where(tl.abs(shift) < float("inf"), shift, 0.0)
    if FLOAT64:
        shift = shift.to(tl.float64)
    sums = tl.zeros((HEIGHT // RUN, WIDTH), tl.float64)
    squares = tl.zeros((HEIGHT // RUN, WIDTH), tl.float64)
    for step in tl.range(0, steps):
        offset, inside = tile(start + step * HEIGHT, column, rows, COLUMNS, HEIGHT)
        shifted = tl.where(inside, add(total, x, residual, offset, inside) - shift, 0.0)
        sums += sum_runs(shifted)
        squares += sum_runs(multiply(shifted, shifted))
    count = tl.minimum(rows - start, tl.cast(steps, tl.int64) * HEIGHT).to(tl.float64)
    back = tl.reshape(shift, (WIDTH,)).to(tl.float64)
    rest = tl.sum(sums, 0)
    first = rest + multiply(back, count)
    second = tl.sum(squares, 0) + multiply(back, rest + first)
    store_partial(partials, block, column, first, second, COLUMNS)


@triton.jit
def _move(running, value, kept, momentum, column, inside):
    """A running statistic towards a value; torch.compile passes floats as float64."""
    old = tl.load(running + column, inside)
    moved = multiply(old, tl.cast(kept, tl.float32)) + multiply(value, tl.cast(momentum, tl.float32))
    tl.store(running + column, moved, inside)


@triton.jit
def _merge_moments_kernel(
    mean,
    variance,
    running_mean,
    running_var,
    batches,
    partials,
    blocks,
    rows,
    kept,
    momentum,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = column < COLUMNS
    sums, squares = merge(partials, column, blocks, COLUMNS, BLOCKS)
    count = tl.cast(rows, tl.float64)
    centre = sums / count
    spread = squares / count - multiply(centre, centre)
    spread = tl.where(spread < 0, 0.0, spread).to(tl.float32)
    centre = centre.to(tl.float32)
    tl.store(mean + column, centre, inside)
    tl.store(variance + column, spread, inside)
    if running_mean is not None:
        _move(running_mean, centre, kept, momentum, column, inside)
    if running_var is not None:
        unbiased = (multiply(spread.to(tl.float64), count) / (count - 1.0)).to(tl.float32)
        _move(running_var, unbiased, kept, momentum, column, inside)
    if batches is not None:
        counts = tl.program_id(0) == 0
        tl.store(batches, tl.load(batches, counts, other=0) + 1, counts)


@triton.jit
def _gradient_sums_kernel(
    partials,
    grad,
    x,
    mean,
    variance,
    weight,
    bias,
    rows,
    steps,
    eps,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    FLOAT64: tl.constexpr,
):
    """Sum of the gradient behind the ReLU, and of its product with x - mean, of a block of rows."""
    block, column = program_columns(COLUMNS, WIDTH)
    centre = load_column(mean, column, COLUMNS)
    inverse = inverse_deviation(load_column(variance, column, COLUMNS), eps)
    scale = multiply(inverse, load_column(weight, column, COLUMNS))
    shift = load_column(bias, column, COLUMNS)
    sums = tl.zeros((HEIGHT // RUN, WIDTH), tl.float64)
    products = tl.zeros((HEIGHT // RUN, WIDTH), tl.float64)
    for step in tl.range(0, steps):
        offset, inside = tile((block * steps + step) * HEIGHT, column, rows, COLUMNS, HEIGHT)
        centred = load(x, offset, inside) - centre
        g = tl.where(inside, through_relu(load(grad, offset, inside), centred, scale, shift), 0.0)
        if FLOAT64:
            g = g.to(tl.float64)
            centred = centred.to(tl.float64)
        sums += sum_runs(g)
        products += sum_runs(tl.where(inside, multiply(g, centred), 0.0))
    store_partial(partials, block, column, tl.sum(sums, 0), tl.sum(products, 0), COLUMNS)


@triton.jit
def _merge_gradient_sums_kernel(
    sums,
    partials,
    variance,
    blocks,
    eps,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = column < COLUMNS
    first, second = merge(partials, column, blocks, COLUMNS, BLOCKS)
    inverse = inverse_deviation(tl.load(variance + column, inside), eps)
    tl.store(sums + column, first.to(tl.float32), inside)
    tl.store(sums + COLUMNS + column, multiply(second, inverse.to(tl.float64)).to(tl.float32), inside)


def batch_moments_(
    mean: Tensor,
    variance: Tensor,
    total: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    momentum: float,
) -> None:
    """Two launches; see `reference.batch_moments_`."""
    tiles = summing_tiles(x)
    partials = _partials(tiles, x)
    launch_rows(
        _moments_kernel, tiles.programs, x, [partials, total, x, residual, tiles.rows, tiles.steps], tiles.summing
    )
    statistics = [mean, variance, running_mean, running_var, batches]
    numbers = [tiles.row_blocks, tiles.rows, float(1 - momentum), float(momentum)]
    _launch_merge(_merge_moments_kernel, tiles, x, [*statistics, partials, *numbers])


def normalize_relu_sums_(
    sums: Tensor,
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> None:
    """Two launches; see `reference.normalize_relu_sums_`."""
    tiles = summing_tiles(x)
    partials = _partials(tiles, x)
    arguments = [partials, grad, x, mean, variance, weight, bias, tiles.rows, tiles.steps, float(eps)]
    launch_rows(_gradient_sums_kernel, tiles.programs, x, arguments, tiles.summing)
    _launch_merge(_merge_gradient_sums_kernel, tiles, x, [sums, partials, variance, tiles.row_blocks, float(eps)])


def _partials(tiles: Tiles, x: Tensor) -> Tensor:
    """float64 (blocks of rows, 2, C)."""
    return torch.empty((tiles.row_blocks, 2, tiles.columns), dtype=torch.float64, device=x.device)


def _launch_merge(kernel: object, tiles: Tiles, x: Tensor, arguments: list[object]) -> None:
    constants = tiles.merging
    launch_rows(kernel, -(-tiles.columns // constants["WIDTH"]), x, arguments, constants)
