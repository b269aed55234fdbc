"""Standard training: no attack."""

import torch.nn.functional as F
from torch import Tensor

from freefast.training.state import TrainState


def standard_step(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One update on clean images.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    Returns: mean loss; logits (N, classes)
    """
    logits = state.model(images)
    loss = F.cross_entropy(logits, labels)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    state.scheduler.step()
    return loss.detach(), logits.detach()
