"""Auto-PGD."""

from dataclasses import replace
from functools import partial
from typing import get_args

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.auto_pgd import auto_pgd
from freefast.attacks.base import Attack, Rng
from freefast.attacks.losses import LossName, cross_entropy, dlr, targeted_cross_entropy, targeted_dlr
from freefast.attacks.problem import Problem
from freefast.attacks.search import worst_case
from freefast.precision import Precision
from freefast.threat import Norm

_LOSSES = {
    ("ce", False): cross_entropy,
    ("ce", True): targeted_cross_entropy,
    ("dlr", False): dlr,
    ("dlr", True): targeted_dlr,
}


class APGD(Attack):
    """Projected gradient ascent with momentum from a random start, which chooses its step sizes by itself.

    Each restart attacks the samples that are not fooled by then. A sample that is fooled without an attack stays as
    it is; one that nothing fools gets the image with the largest loss.

    steps: number of steps of a restart
    restarts: random starts
    loss: "ce", cross-entropy, or "dlr", the difference of logits ratio, which wants 3 classes
    rho: a step size is halved where a smaller share of the steps between two checkpoints gained
    momentum: share of the new step in a move, the rest being the last move's
    stop_when_fooled: a sample leaves the batch once it is fooled, which changes no verdict; else it goes on for the
        largest loss
    model, eps, norm, targeted, rng, mean, std, precision: as `Attack`

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", algorithm 1 and equation 6; targeted, the negative of the same losses.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        steps: int = 100,
        restarts: int = 1,
        loss: LossName = "ce",
        rho: float = 0.75,
        momentum: float = 0.75,
        stop_when_fooled: bool = True,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, targeted=targeted, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"steps": (steps, 1), "restarts": (restarts, 1), "rho": (rho, 0), "momentum": (momentum, 0)})
        self._one_of("loss", loss, get_args(LossName))
        self.steps = steps
        self.restarts = restarts
        self.loss = loss
        self.rho = rho
        self.momentum = momentum
        self.stop_when_fooled = stop_when_fooled

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        problem = replace(problem, loss=_LOSSES[self.loss, self.targeted])
        climb = partial(
            auto_pgd,
            steps=self.steps,
            rho=self.rho,
            momentum=self.momentum,
            stop_when_fooled=self.stop_when_fooled,
            rng=rng,
        )
        return worst_case(problem, [lambda part, _: climb(part)] * self.restarts)
