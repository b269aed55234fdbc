"""Standard training: no attack."""

from torch import Tensor

from freefast.training.state import TrainState


def standard_step(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One update on clean images.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    Returns: mean loss; logits (N, classes)
    """
    loss, logits = state.loss(images, labels)
    state.backward(loss)
    state.update()
    return loss.detach(), logits.detach()
