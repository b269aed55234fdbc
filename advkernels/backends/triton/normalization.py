"""BatchNorm followed by ReLU, given mean and variance, and the gradient of its input."""

import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.triton.elements import divide, load, maximum, multiply, store
from advkernels.backends.triton.rows import add, elementwise_tiles, launch_rows, load_column, program_columns, tile


@triton.jit
def inverse_deviation(variance, eps):
    """float32 1 / sqrt(variance + eps)."""
    # torch.compile passes a float as float64: rounded here, as an eager launch rounds it on the host.
    root = tl.sqrt_rn(variance + tl.cast(eps, tl.float32))
    return divide(tl.full(root.shape, 1.0, tl.float32), root)


@triton.jit
def through_relu(grad, centred, scale, bias):
    """The gradient behind the ReLU, which lets it through where its input is not 0 or less."""
    return tl.where(multiply(centred, scale) + bias <= 0, 0.0, grad)


@triton.jit
def _normalize_relu_kernel(
    out,
    total,
    x,
    residual,
    mean,
    variance,
    weight,
    bias,
    rows,
    eps,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
):
    block, column = program_columns(COLUMNS, WIDTH)
    offset, inside = tile(block * HEIGHT, column, rows, COLUMNS, HEIGHT)
    centred = add(total, x, residual, offset, inside) - load_column(mean, column, COLUMNS)
    inverse = inverse_deviation(load_column(variance, column, COLUMNS), eps)
    scale = multiply(inverse, load_column(weight, column, COLUMNS))
    normal = multiply(centred, scale) + load_column(bias, column, COLUMNS)
    store(out, offset, maximum(normal, 0.0), inside)


@triton.jit
def _normalize_relu_backward_kernel(
    grad_x,
    grad,
    grad_total,
    x,
    mean,
    variance,
    weight,
    bias,
    sums,
    rows,
    eps,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
):
    block, column = program_columns(COLUMNS, WIDTH)
    offset, inside = tile(block * HEIGHT, column, rows, COLUMNS, HEIGHT)
    centred = load(x, offset, inside) - load_column(mean, column, COLUMNS)
    inverse = inverse_deviation(load_column(variance, column, COLUMNS), eps)
    scale = multiply(inverse, load_column(weight, column, COLUMNS))
    g = through_relu(load(grad, offset, inside), centred, scale, load_column(bias, column, COLUMNS))
    if sums is not None:
        count = tl.cast(rows, tl.float32)
        bias_share = divide(load_column(sums, column, COLUMNS), count)
        weight_share = divide(load_column(sums + COLUMNS, column, COLUMNS), count)
        g = (g - bias_share) - multiply(multiply(centred, inverse), weight_share)
    g = multiply(scale, g)
    if grad_total is not None:
        g += load(grad_total, offset, inside)
    store(grad_x, offset, g, inside)


def normalize_relu_(
    out: Tensor,
    total: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> None:
    """One launch; see `reference.normalize_relu_`."""
    tiles = elementwise_tiles(x)
    arguments = [out, total, x, residual, mean, variance, weight, bias, tiles.rows, float(eps)]
    launch_rows(_normalize_relu_kernel, tiles.programs, x, arguments, tiles.constants)


def normalize_relu_backward_(
    grad_x: Tensor,
    grad: Tensor,
    grad_total: Tensor | None,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    sums: Tensor | None,
    eps: float,
) -> None:
    """One launch; see `reference.normalize_relu_backward_`."""
    tiles = elementwise_tiles(x)
    arguments = [grad_x, grad, grad_total, x, mean, variance, weight, bias, sums, tiles.rows, float(eps)]
    launch_rows(_normalize_relu_backward_kernel, tiles.programs, x, arguments, tiles.constants)
