"""Fast adversarial training: FGSM from a random start, and what keeps it from catastrophic overfitting."""

import torch
from torch import Tensor

from freefast.training.grad_align import misalignment
from freefast.training.standard import standard_step
from freefast.training.state import TrainState


def fast_step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    delta_init: str,
    noise_magnitude: float = 1.0,
    clip: bool = True,
    grad_align: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One update on the images of a one-step attack; the attack runs in train mode.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    alpha: step size, pixel units
    delta_init: where the attack starts: "zero", "random" in the ball, or "previous", where the last one ended
    noise_magnitude: radius of the random start, in epsilons; 2 without clip is N-FGSM
    clip: project the perturbation on the ball behind the step; the box is kept to in any case
    grad_align: weight of `misalignment` in the loss that trains
    Returns: mean cross-entropy; logits (N, classes)
    Source: Wong et al. 2020, "Fast is better than free", algorithm 3; the report's algorithm 3; de Jorge et al. 2022,
        "Make some noise: reliable and efficient single-step adversarial training", algorithm 1 and its code.
    """
    problem = state.problem(images, labels)
    adversarial = images.clone()
    match delta_init:
        case "previous":
            delta = state.delta[: len(images)]
            adversarial += delta
        case "random":
            wide = problem.ball.of_radius(state.threat.step(noise_magnitude * state.threat.epsilon))
            delta = wide.start(images, state.rng, out=adversarial)
        case _:
            delta = torch.zeros_like(images)
    gradient, _ = problem.gradient(adversarial)
    ball = problem.ball if clip else problem.ball.without_radius()
    ball.step_(delta, gradient, images, state.threat.step(alpha), out=adversarial)
    penalty = grad_align * misalignment(state, images, labels) if grad_align else None
    return standard_step(state, adversarial, labels, penalty)
