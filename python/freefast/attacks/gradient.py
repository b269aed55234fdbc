"""What an attack asks of a model: its gradient at the images, leaving nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freefast.precision import FP32, Precision


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor, precision: Precision = FP32) -> tuple[Tensor, Tensor]:
    """Gradient of the batch's mean cross-entropy with respect to the images alone, for its sign.

    No weight gradient is computed and no `.grad` touched.

    x: (N, C, H, W) float32, model units
    labels: (N,) int64
    Returns: gradient like x, times `precision.attack_scale`; logits (N, classes) float32
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = precision.logits(model, x)
        loss = F.cross_entropy(logits, labels) * precision.attack_scale(len(labels))
        (gradient,) = torch.autograd.grad(loss, [x])
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
