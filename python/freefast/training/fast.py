"""Fast adversarial training: FGSM from a random start."""

import torch
from torch import Tensor

import advkernels as ak
from freefast.attacks.gradient import input_gradient
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
    epsilon, box = state.threat.model_epsilon, (state.threat.lower, state.threat.upper)
    delta = state.delta[: len(images)] if delta_init == "previous" else torch.zeros_like(images)
    adversarial = images + delta
    if delta_init == "random":
        ak.uniform_init_(delta, images, epsilon, *box, rng=state.rng, out=adversarial)
    gradient, _ = input_gradient(state.model, adversarial, labels, state.precision)
    state.health.add(gradient)
    ak.sign_step_(delta, gradient, images, state.threat.step(alpha), epsilon, *box, out=adversarial)
    return standard_step(state, adversarial, labels)
