"""Free adversarial training: one backward pass serves the weights and the perturbation."""

from torch import Tensor

import advkernels as ak
from freefast.training.state import TrainState


def free_step(state: TrainState, images: Tensor, labels: Tensor, *, replays: int) -> tuple[Tensor, Tensor]:
    """`replays` updates on one batch, each followed by a step of size epsilon of the lasting perturbation.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    Returns: mean loss and logits (N, classes) of the last replay
    Source: Shafahi et al. 2019, "Adversarial training for free!", algorithm 1; the report's algorithm 2.
    """
    epsilon, box = state.threat.model_epsilon, (state.threat.lower, state.threat.upper)
    delta = state.delta[: len(images)]
    adversarial = images + delta
    for _ in range(replays):
        x = adversarial.detach().requires_grad_()
        loss, logits = state.loss(x, labels)
        state.backward(loss)
        assert x.grad is not None
        state.health.add(x.grad)
        ak.sign_step_(delta, x.grad, images, epsilon, epsilon, *box, out=adversarial)
        state.update()
    return loss.detach(), logits.detach()
