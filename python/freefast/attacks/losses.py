"""What attacks maximise: logits (N, classes) and labels (N,) in, one number a sample out."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from freefast.errors import UserError

Loss = Callable[..., Tensor]
LossName = Literal["ce", "dlr"]
_TINY = 1e-12  # of a difference of logits: where all are equal, DLR is 0


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of the label's probability."""
    return F.cross_entropy(logits, labels, reduction="none")


def targeted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """log of the probability of the class to reach."""
    return -cross_entropy(logits, labels)


def aimed_cross_entropy(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """log of the probability of the class aimed for; labels do not count."""
    return targeted_cross_entropy(logits, aims)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the largest other logit is above the label's: above 0 where the sample is misclassified."""
    return without(logits, labels).amax(1) - _logit(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: `margin` over the distance of the largest logit from the third largest.

    Raises: UserError where there are fewer than 3 classes.
    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", equation 6.
    """
    _require_classes("dlr", logits, 3)
    first, _, third = logits.topk(3, 1).values.unbind(1)
    return margin(logits, labels) / (first - third).clamp_min(_TINY)


def targeted_dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """-DLR of the class to reach: above 0 nowhere but where it is reached."""
    return -dlr(logits, labels)


def aimed_dlr(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """Targeted DLR: how far the logit of the class aimed for is above the label's, over the distance of the largest
    logit from the mean of the third and the fourth largest.

    Raises: UserError where there are fewer than 4 classes.
    Source: Croce and Hein 2020, equation 7.
    """
    _require_classes("targeted dlr", logits, 4)
    first, _, third, fourth = logits.topk(4, 1).values.unbind(1)
    return (_logit(logits, aims) - _logit(logits, labels)) / (first - (third + fourth) / 2).clamp_min(_TINY)


def without(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits with -infinity at the labels."""
    return logits.scatter(1, labels[:, None], float("-inf"))


def _logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _require_classes(loss: str, logits: Tensor, least: int) -> None:
    if logits.shape[1] < least:
        raise UserError(f"loss {loss}: wanted at least {least} classes, got {logits.shape[1]}: ce takes any number")
