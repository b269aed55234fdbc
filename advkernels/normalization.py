"""The documented facade of BatchNorm followed by ReLU, and its gradients."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from advkernels import checks
from advkernels.dispatch import choose, pick


def batch_norm_relu(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    batches: Tensor | None = None,
) -> Tensor:
    """relu(batch_norm(x)): two passes over the images in training, one in evaluation, and as many backwards.

    The arithmetic is float32, rounded once into x's dtype; mean and variance are as float64's to a few roundings of
    float32. Backwards nothing but x is kept: the ReLU's input is computed again. Differentiable twice. PyTorch's own
    batch_norm and relu run with the reference backend, with other dtypes, memory formats or strided or negated
    columns, where torch.compile, torch.jit, torch.func, forward mode or batches of gradients look into it, and without
    running statistics in evaluation.

    x: (N, C, ...) floating point; the kernels are for float32, bfloat16 and float16, contiguous of two dimensions,
        channels_last of four, channels_last_3d of five. Empty is as in PyTorch: running statistics stay, the batch
        counts, gradients of weight and bias are 0
    running_mean, running_var: (C,) of weight's dtype, on x's device, moved in training, used in evaluation; None for
        the batch's own
    weight, bias: (C,) on x's device, float32 for the kernels
    training: whether to normalise by the batch's mean and variance
    momentum: how far the running statistics move towards the batch's, in [0, 1], which is not checked; not None
    eps: added to the variance, above 0; the kernels do not check it
    batches: int64 of one element on x's device, a count of batches that is advanced in training

    Returns: like x; in PyTorch's memory format on every backend, channels_last where x is, else contiguous
    Raises: TypeError or ValueError where an argument's type, shape or device is wrong, one of the running statistics is
        missing, or x has one value a channel in training; nothing is written then. `BackendUnavailable` where the
        backend asked for by name cannot run.
    Source: Ioffe and Szegedy 2015, "Batch normalization", algorithms 1 and 2.
    """
    statistics = (running_mean, running_var, batches)
    return _batch_norm_relu("batch_norm_relu", x, None, statistics, weight, bias, training, momentum, eps)[0]


def add_batch_norm_relu(
    x: Tensor,
    residual: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    batches: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`batch_norm_relu` of total = x + residual, which is summed in the same pass, as is its gradient.

    residual: like x, of its dtype; another memory format is copied
    others: as for `batch_norm_relu`

    Returns: relu(batch_norm(total)); total, like x
    Raises: as `batch_norm_relu`
    """
    operation = "add_batch_norm_relu"
    checks.floating(operation, "residual", residual)
    checks.like(operation, "residual", residual, x)
    if residual.dtype != x.dtype:
        raise TypeError(checks.wrong(operation, "residual", str(x.dtype), residual.dtype))
    statistics = (running_mean, running_var, batches)
    out, total = _batch_norm_relu(operation, x, residual, statistics, weight, bias, training, momentum, eps)
    assert total is not None
    return out, total


_ROWS = {2: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}
"""By dimensions: images that are rows without a copy, in a memory format that PyTorch's own batch_norm keeps."""

Statistics = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Running mean and variance, the count of batches."""


def _batch_norm_relu(
    operation: str,
    x: Tensor,
    residual: Tensor | None,
    statistics: Statistics,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor | None]:
    checks.normalization(operation, x, statistics, weight, bias, training, momentum, eps)
    backend = choose(x.device)
    if _is_for_pytorch(x, [weight, bias, *(tensor for tensor in statistics[:2] if tensor is not None)]):
        backend = "reference"
    if backend == "reference" or (statistics[0] is None and not training):
        return _plain(x, residual, statistics, weight, bias, training, momentum, eps)
    return _BatchNormReLU.apply(x, residual, statistics, weight, bias, training, momentum, eps, backend)


def _is_for_pytorch(x: Tensor, columns: list[Tensor]) -> bool:
    """Whether PyTorch looks into the operation, or numbers or memory are others than the kernels are for."""
    return (
        _is_looked_into()
        or x.dtype not in checks.DTYPES
        or not _is_rows(x)
        or any(column.dtype != torch.float32 or not column.is_contiguous() or column.is_neg() for column in columns)
    )


def _is_rows(x: Tensor) -> bool:
    memory_format = _ROWS.get(x.dim())
    return memory_format is not None and x.numel() > 0 and x.is_contiguous(memory_format=memory_format)


def _is_looked_into() -> bool:
    """Whether PyTorch transforms what runs: compiles, traces, batches or differentiates it forwards."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def _is_batched(grad: Tensor | None) -> bool:
    """Whether it stands for several, as autograd batches them; torch.func's are seen by `_is_looked_into`."""
    return grad is not None and is_legacy_batchedtensor(grad)


def _plain(
    x: Tensor,
    residual: Tensor | None,
    statistics: Statistics,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor | None]:
    """What `_BatchNormReLU` computes, by PyTorch's own functions."""
    running_mean, running_var, batches = statistics
    total = x if residual is None else x + residual
    if training and batches is not None:
        batches.add_(1)
    normal = F.batch_norm(
        total, running_mean, running_var, weight, bias, training or running_mean is None, momentum, eps
    )
    return F.relu(normal), None if residual is None else total


class _BatchNormReLU(torch.autograd.Function):
    """Of x and what is added to it: relu(batch_norm(total)), and total where something is added."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        statistics: Statistics,
        weight: Tensor,
        bias: Tensor,
        training: bool,
        momentum: float,
        eps: float,
        backend: str,
    ) -> tuple[Tensor, Tensor | None]:
        rows, added = _rows(x), None if residual is None else _rows(residual)
        out, total = torch.empty_like(rows), None if added is None else torch.empty_like(rows)
        mean, variance, _ = statistics
        if training:
            mean, variance = weight.new_empty((2, len(weight)))
            pick(backend, "batch_moments_")(mean, variance, total, *statistics, rows, added, momentum)
            _mark_written(statistics)
            normalize = partial(pick(backend, "normalize_relu_"), out, None, rows if total is None else total, None)
        else:
            normalize = partial(pick(backend, "normalize_relu_"), out, total, rows, added)
        normalize(mean, variance, weight, bias, eps)
        summed = None if total is None else _images(total, x)
        ctx.save_for_backward(x if summed is None else summed, weight, bias, mean, variance)
        ctx.training, ctx.eps, ctx.backend = training, eps, backend
        ctx.set_materialize_grads(False)
        return _images(out, x), summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            gradients: tuple[Tensor | None, ...] = (grad_total, None, None)
        elif torch.is_grad_enabled() or _is_looked_into() or _is_batched(grad) or _is_batched(grad_total):
            gradients = _plain_gradients(ctx, grad, grad_total)
        else:
            gradients = _gradients(ctx, grad, grad_total)
        grad_residual = gradients[0] if ctx.needs_input_grad[1] else None
        return gradients[0], grad_residual, None, *gradients[1:], *[None] * 4


def _mark_written(statistics: Statistics) -> None:
    """So that autograd notices saved statistics that were moved."""
    for tensor in statistics:
        if tensor is not None and not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)


def _gradients(ctx: Any, grad: Tensor, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
    """Of total, weight and bias."""
    total, weight, bias, mean, variance = ctx.saved_tensors
    rows, grads = _rows(total), _rows(grad)
    normal = (rows, mean, variance, weight, bias)
    sums = None
    if ctx.training or ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
        sums = torch.empty((2, len(weight)), dtype=weight.dtype, device=weight.device)
        pick(ctx.backend, "normalize_relu_sums_")(sums, grads, *normal, ctx.eps)
    weight_and_bias = (None, None) if sums is None else (sums[1], sums[0])
    if not any(ctx.needs_input_grad[:2]):
        return None, *weight_and_bias
    grad_x = torch.empty_like(rows)
    added = None if grad_total is None else _rows(grad_total)
    subtracted = sums if ctx.training else None
    pick(ctx.backend, "normalize_relu_backward_")(grad_x, grads, added, *normal, subtracted, ctx.eps)
    return _images(grad_x, total), *weight_and_bias


def _plain_gradients(ctx: Any, grad: Tensor, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
    """The same by PyTorch's own functions, which can be differentiated again and take batches of gradients."""
    again = torch.is_grad_enabled()
    total, weight, bias, mean, variance = ctx.saved_tensors
    if ctx.training:
        mean = variance = None
    with torch.enable_grad():
        # Others than the tensors themselves, one of which may depend on another.
        inputs = [
            tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            for tensor in (total, weight, bias)
        ]
        normal = F.batch_norm(inputs[0], mean, variance, inputs[1], inputs[2], ctx.training, 0.0, ctx.eps)
        out = F.relu(normal)
        grad_x, *others = torch.autograd.grad(out, inputs, grad, create_graph=again)
        return grad_x if grad_total is None else grad_x + grad_total, *others


def _rows(images: Tensor) -> Tensor:
    """(N, C, ...) as (rows, C), a row a pixel; channels_last images are not copied."""
    return images.detach().movedim(1, -1).reshape(-1, images.shape[1]).contiguous()


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """(rows, C) as images (N, C, ...) in channels_last memory."""
    shape = like.shape
    return rows.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
