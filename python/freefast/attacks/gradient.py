"""What an attack asks of a model: its gradient at the images, leaving nothing behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from freefast.precision import FP32, Precision


def input_gradient(
    model: nn.Module,
    x: Tensor,
    losses: Callable[[Tensor], Tensor],
    precision: Precision = FP32,
    *,
    differentiable: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradient of the mean of the losses with respect to the images alone, for its direction.

    No weight gradient is computed and no `.grad` touched.

    x: (N, C, H, W) float32, model units
    losses: logits (N, classes) float32 to (N,)
    differentiable: whether the gradient can be differentiated by the weights; it has no headroom then, since the second
        derivatives of a larger one overflow in float16
    Returns: gradient like x, times `precision.attack_scale`; logits (N, classes) float32
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = precision.logits(model, x)
        scale = precision.attack_scale(len(x), headroom=0) if differentiable else precision.attack_scale(len(x))
        loss = losses(logits).mean() * scale
        (gradient,) = torch.autograd.grad(loss, [x], create_graph=differentiable)
    return gradient, logits.detach()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside; each gets its own flag back at the end, also after an exception."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
