"""The l-inf attack in model units, on which every attack, trainer and evaluation stands."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.gradient import input_gradient
from freefast.attacks.health import GradientHealth
from freefast.precision import FP32, Precision
from freefast.threat import ThreatModel


def pgd(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    alpha: float,
    steps: int,
    rng: ak.PhiloxState | None,
    restarts: int = 1,
    stop_when_fooled: bool = True,
    sample_index: Tensor | None = None,
    precision: Precision = FP32,
    health: GradientHealth | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy, in the mode the model is in.

    x: (N, C, H, W) float32, model units
    labels: (N,) int64
    alpha: step size, pixel units
    rng: of the random starts; None starts at the images themselves
    restarts: of several runs, each sample keeps the perturbation with the largest loss
    stop_when_fooled: a sample stops moving once it is misclassified
    sample_index: (N,) int64, makes a sample's start independent of the batch it is in
    precision: how the model computes; delta and the projections are float32
    health: counts the gradients' zeros

    Returns: adversarial images like x
    Source: Madry et al. 2017, section 2.1; restarts and stop as in the code of Wong et al. 2020.
    """
    climb = partial(
        _climb, model, x, labels, threat, alpha, steps, rng, stop_when_fooled, sample_index, precision, health
    )
    best = climb()
    if restarts == 1:
        return best
    best_loss = _losses(model, best, labels, precision)
    for _ in range(restarts - 1):
        adversarial = climb()
        loss = _losses(model, adversarial, labels, precision)
        best = torch.where((loss >= best_loss).view(-1, 1, 1, 1), adversarial, best)
        best_loss = torch.maximum(best_loss, loss)
    return best


def _climb(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    alpha: float,
    steps: int,
    rng: ak.PhiloxState | None,
    stop_when_fooled: bool,
    sample_index: Tensor | None,
    precision: Precision,
    health: GradientHealth | None,
) -> Tensor:
    epsilon, box, size = threat.model_epsilon, (threat.lower, threat.upper), threat.step(alpha)
    adversarial = x.clone()
    if rng is None:
        delta = torch.zeros_like(x)
    else:
        delta = ak.uniform_init(x, epsilon, *box, rng=rng, sample_index=sample_index, out=adversarial)
    moving = None
    for _ in range(steps):
        gradient, logits = input_gradient(model, adversarial, labels, precision)
        if health is not None:
            health.add(gradient)
        if stop_when_fooled:
            moving = logits.argmax(1) == labels
            if x.device.type == "cpu" and not moving.any():
                break
        ak.sign_step_(delta, gradient, x, size, epsilon, *box, mask=moving, out=adversarial)
    return adversarial


@torch.no_grad()
def _losses(model: nn.Module, x: Tensor, labels: Tensor, precision: Precision) -> Tensor:
    return F.cross_entropy(precision.logits(model, x), labels, reduction="none")
