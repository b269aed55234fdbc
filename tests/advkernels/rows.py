"""Rows (R, C) for the operators of BatchNorm and ReLU: the case table, and one call of each operator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-5
MOMENTUM = 0.1
# One column, vector widths -1, 0 and +1, odd numbers, several blocks of columns; few rows, a block's and some more.
SHAPES = ((2, 1), (7, 3), (33, 8), (1000, 16), (65, 7), (300, 9), (257, 64), (130, 100), (31, 520), (3, 2056))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Operator = Callable[..., None]
Operators = Callable[[str], Operator]


@dataclass(frozen=True)
class Images:
    """x, residual, and the gradients of what is made of them; columns of the model."""

    x: Tensor
    residual: Tensor
    grad: Tensor
    grad_total: Tensor
    weight: Tensor
    bias: Tensor


def images(shape: tuple[int, int], dtype: torch.dtype, device: str = "cpu", offset: int = 0) -> Images:
    """Random ones; `offset` elements behind a multiple of 16 bytes."""
    rows, columns = shape
    generator = torch.Generator().manual_seed(rows * 10_000 + columns)
    scale, shift = torch.rand(columns, generator=generator) + 0.5, torch.randn(columns, generator=generator) * 3

    def make() -> Tensor:
        memory = torch.zeros(rows * columns + offset, dtype=dtype, device=device)
        return memory[offset:].view(shape).copy_(torch.randn(shape, generator=generator) * scale + shift)

    def column(values: Tensor) -> Tensor:
        return values.to(device)

    bias = torch.randn(columns, generator=generator)
    tensors = [make() for _ in range(4)]
    return Images(*tensors, column(torch.rand(columns, generator=generator) + 0.5), column(bias))


def moments(operators: Operators, i: Images, with_residual: bool, running: bool) -> dict[str, Tensor]:
    """What `batch_moments_` writes."""
    columns = {name: torch.full_like(i.weight, 0.5) for name in ("mean", "variance", "running_mean", "running_var")}
    batches = torch.tensor(3, device=i.x.device)
    total = torch.full_like(i.x, float("nan")) if with_residual else None
    moving = (columns["running_mean"], columns["running_var"], batches) if running else (None, None, None)
    residual = i.residual if with_residual else None
    operators("batch_moments_")(columns["mean"], columns["variance"], total, *moving, i.x, residual, MOMENTUM)
    return columns | {"batches": batches} | ({} if total is None else {"total": total})


def normalized(operators: Operators, i: Images, mean: Tensor, variance: Tensor, with_residual: bool) -> list[Tensor]:
    """What `normalize_relu_` writes."""
    out, total = torch.full_like(i.x, float("nan")), torch.full_like(i.x, float("nan")) if with_residual else None
    residual = i.residual if with_residual else None
    operators("normalize_relu_")(out, total, i.x, residual, mean, variance, i.weight, i.bias, EPS)
    return [out] if total is None else [out, total]


def sums(operators: Operators, i: Images, mean: Tensor, variance: Tensor) -> Tensor:
    """What `normalize_relu_sums_` writes."""
    found = torch.full((2, len(mean)), float("nan"), device=mean.device)
    operators("normalize_relu_sums_")(found, i.grad, i.x, mean, variance, i.weight, i.bias, EPS)
    return found


def gradient(
    operators: Operators, i: Images, mean: Tensor, variance: Tensor, summed: Tensor | None, with_total: bool
) -> Tensor:
    """What `normalize_relu_backward_` writes."""
    grad_x = torch.full_like(i.x, float("nan"))
    added = i.grad_total if with_total else None
    operators("normalize_relu_backward_")(grad_x, i.grad, added, i.x, mean, variance, i.weight, i.bias, summed, EPS)
    return grad_x


def exact_sums(i: Images, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """`sums` in float64, the ReLU's mask from float32 as rounded; what the terms add up to without their signs."""
    centred = i.x.float() - mean
    deviation = (variance + EPS).double().sqrt().float()
    kept = ~(centred * ((1 / deviation) * i.weight) + i.bias <= 0)
    g = i.grad.double() * kept
    terms = torch.stack([g, g * centred.double() / deviation.double()])
    return terms.sum(1), terms.abs().sum(1)


def check_moments(found: dict[str, Tensor], i: Images, with_residual: bool, running: bool, roundings: int = 8) -> None:
    """Statistics within float32's roundings of float64's, running ones within torch's formula; the sum exact."""
    total = (i.x.float() + i.residual.float()).to(i.x.dtype) if with_residual else i.x
    values = total.double()
    mean, variance = values.mean(0), values.var(0, correction=0)
    rounding = torch.finfo(torch.float32).eps
    assert ((found["mean"] - mean).abs() <= 2 * rounding * (mean.abs() + variance.sqrt())).all()
    within = roundings * rounding
    torch.testing.assert_close(found["variance"].double(), variance, rtol=within, atol=rounding * 1e-6)
    assert not with_residual or torch.equal(found["total"], total)
    unbiased = variance * len(values) / (len(values) - 1)
    moved = [
        0.5 + MOMENTUM * (statistic - 0.5) if running else torch.full_like(mean, 0.5) for statistic in (mean, unbiased)
    ]
    torch.testing.assert_close(found["running_mean"].double(), moved[0], rtol=within, atol=4 * rounding)
    torch.testing.assert_close(found["running_var"].double(), moved[1], rtol=within, atol=4 * rounding)
    assert found["batches"] == (4 if running else 3)


def check_sums(found: Tensor, i: Images, mean: Tensor, variance: Tensor) -> None:
    """Within float32's roundings of float64's."""
    exact, size = exact_sums(i, mean, variance)
    assert ((found - exact).abs() <= 4 * torch.finfo(torch.float32).eps * size).all()
