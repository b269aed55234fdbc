"""PGD adversarial training."""

from torch import Tensor

from freefast.attacks import functional
from freefast.training.standard import standard_step
from freefast.training.state import TrainState


def pgd_step(state: TrainState, images: Tensor, labels: Tensor, *, alpha: float, steps: int) -> tuple[Tensor, Tensor]:
    """One update on the images of a PGD attack from a random start; the attack runs in train mode.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    alpha: step size, pixel units
    Returns: mean loss; logits (N, classes)
    Source: Madry et al. 2017, section 2.1; the report's algorithm 1.
    """
    adversarial = functional.pgd(
        state.problem(images, labels),
        alpha=state.threat.step(alpha),
        steps=steps,
        rng=state.rng,
        stop_when_fooled=False,
    )
    return standard_step(state, adversarial, labels)
