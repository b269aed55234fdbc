"""The momentum iterative fast gradient sign method."""

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.base import Attack, Rng
from freefast.attacks.problem import Problem
from freefast.precision import Precision
from freefast.threat import Norm


class MIFGSM(Attack):
    """Steps from the image along a decaying sum of the gradients, each divided by its l1 norm.

    alpha: step size, pixel units; None takes eps / steps
    steps: number of steps
    decay: what is kept of the sum at each step
    model, eps, norm, targeted, rng, mean, std, precision: as `Attack`; nothing is random

    A gradient that is zero everywhere or not finite somewhere adds nothing.

    Source: Dong et al. 2018, "Boosting adversarial attacks with momentum", algorithm 1, equations 6 to 8.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        decay: float = 1.0,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, targeted=targeted, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"alpha": (alpha, 0), "steps": (steps, 0), "decay": (decay, 0)})
        self.alpha = alpha
        self.steps = steps
        self.decay = decay

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        x = problem.x
        alpha = problem.ball.radius(x) / max(self.steps, 1) if self.alpha is None else self.threat.step(self.alpha)
        per_pixel = self.threat.steps(x.new_ones(1))
        adversarial, delta, momentum = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            gradient, _ = problem.gradient(adversarial)
            momentum = self.decay * momentum + _normalised(gradient, per_pixel)
            problem.ball.step_(delta, momentum, x, alpha, out=adversarial)
        return adversarial


def _normalised(gradient: Tensor, per_pixel: Tensor) -> Tensor:
    """The gradient over the l1 norm that it has in pixel units; per_pixel: (1, C, 1, 1), model units."""
    norm = (gradient * per_pixel).abs().double().sum((1, 2, 3), keepdim=True)
    known = (norm > 0) & norm.isfinite()
    return torch.where(known, gradient / norm.float(), 0)
