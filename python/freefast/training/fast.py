"""Fast adversarial training: FGSM from a random start."""

import torch
from torch import Tensor

from freefast.training.standard import standard_step
from freefast.training.state import TrainState


def fast_step(
    state: TrainState, images: Tensor, labels: Tensor, *, alpha: float, delta_init: str
) -> tuple[Tensor, Tensor]:
    """One update on the images of a one-step attack; the attack runs in train mode.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    alpha: step size, pixel units
    delta_init: where the attack starts: "zero", "random" in the ball, or "previous", where the last one ended
    Returns: mean loss; logits (N, classes)
    Source: Wong et al. 2020, "Fast is better than free", algorithm 3; the report's algorithm 3.
    """
    problem = state.problem(images, labels)
    adversarial = images.clone()
    match delta_init:
        case "previous":
            delta = state.delta[: len(images)]
            adversarial += delta
        case "random":
            delta = problem.ball.start(images, state.rng, out=adversarial)
        case _:
            delta = torch.zeros_like(images)
    gradient, _ = problem.gradient(adversarial)
    problem.ball.step_(delta, gradient, images, state.threat.step(alpha), out=adversarial)
    return standard_step(state, adversarial, labels)
