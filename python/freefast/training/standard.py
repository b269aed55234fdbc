"""Standard training: no attack."""

from torch import Tensor

from freefast.training.state import TrainState


def standard_step(
    state: TrainState, images: Tensor, labels: Tensor, penalty: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One update on clean images.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    penalty: 0-dim, what the update minimises beside the loss
    Returns: mean loss; logits (N, classes)
    """
    loss, logits = state.loss(images, labels)
    state.backward(loss if penalty is None else loss + penalty)
    state.update()
    return loss.detach(), logits.detach()
