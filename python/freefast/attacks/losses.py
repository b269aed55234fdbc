"""What attacks maximise: logits (N, classes) and labels (N,) in, one number a sample out."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of the label's probability."""
    return F.cross_entropy(logits, labels, reduction="none")


def targeted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """log of the probability of the class to reach."""
    return -cross_entropy(logits, labels)
