"""BatchNorm followed by ReLU, forwards and backwards, on rows: a row a pixel, a column a channel."""

import torch
from torch import Tensor


@torch.no_grad()
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
    """Mean and biased variance of every column of total = x + residual; running statistics move towards them."""
    values = add(x, residual, total).double()
    mean.copy_(values.mean(0))
    variance.copy_(values.var(0, correction=0))
    if running_mean is not None:
        running_mean.mul_(1 - momentum).add_(mean * momentum)
    if running_var is not None:
        unbiased = (variance.double() * len(x) / (len(x) - 1)).float()
        running_var.mul_(1 - momentum).add_(unbiased * momentum)
    if batches is not None:
        batches.add_(1)


@torch.no_grad()
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
    """max((total - mean) scale + bias, 0), scale = weight / sqrt(variance + eps), total = x + residual."""
    centred = add(x, residual, total).float() - mean
    out.copy_((centred * (inverse_deviation(variance, eps) * weight) + bias).relu())


@torch.no_grad()
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
    """The gradients of bias and weight: sums[0] = sum(g), sums[1] = sum(g z), z = (x - mean) / sqrt(variance + eps)."""
    g, centred, inverse = _through_relu(grad, x, mean, variance, weight, bias, eps)
    sums[0] = g.double().sum(0)
    sums[1] = (g.double() * centred.double()).sum(0) * inverse.double()


@torch.no_grad()
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
    """The gradient of x: scale ((g - sums[0] / rows) - z (sums[1] / rows)), without sums scale g; plus grad_total."""
    g, centred, inverse = _through_relu(grad, x, mean, variance, weight, bias, eps)
    if sums is not None:
        share = sums / torch.full_like(sums, len(x))
        g = (g - share[0]) - (centred * inverse) * share[1]
    g = (inverse * weight) * g
    grad_x.copy_(g if grad_total is None else g + grad_total.float())


def add(x: Tensor, residual: Tensor | None, total: Tensor | None) -> Tensor:
    """x + residual as it is stored in total, or x."""
    if residual is None:
        return x
    sum_of_both = (x.float() + residual.float()).to(x.dtype)
    return sum_of_both if total is None else total.copy_(sum_of_both)


def inverse_deviation(variance: Tensor, eps: float) -> Tensor:
    """1 / sqrt(variance + eps), every operation rounded in float32."""
    deviation = (variance + eps).double().sqrt().float()  # not every float32 sqrt of PyTorch is rounded to nearest
    return torch.ones_like(variance) / deviation


def _through_relu(
    grad: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient behind the ReLU, which lets it through where its input is not 0 or less; x - mean; the inverse."""
    inverse = inverse_deviation(variance, eps)
    centred = x.float() - mean
    blocked = centred * (inverse * weight) + bias <= 0
    return torch.where(blocked, 0.0, grad.float()), centred, inverse
