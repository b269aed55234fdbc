"""Projected gradient descent."""

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import functional
from freefast.attacks.base import Attack, Rng
from freefast.attacks.problem import Problem
from freefast.precision import Precision
from freefast.threat import Norm


class PGD(Attack):
    """Several steps from a random start in the ball, each projected on the ball and on the valid pixels.

    alpha: step size, pixel units
    steps: number of steps
    random_start: start anywhere in the ball, else at the image
    restarts: of several runs, each sample keeps the one with the largest loss
    stop_when_fooled: a sample stops moving once it is misclassified
    model, eps, norm, targeted, rng, mean, std, precision: as `Attack`

    Source: Madry et al. 2017, "Towards deep learning models resistant to adversarial attacks", section 2.1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        restarts: int = 1,
        stop_when_fooled: bool = True,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, targeted=targeted, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"alpha": (alpha, 0), "steps": (steps, 0), "restarts": (restarts, 1)})
        self.alpha = alpha
        self.steps = steps
        self.random_start = random_start
        self.restarts = restarts
        self.stop_when_fooled = stop_when_fooled

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        return functional.pgd(
            problem,
            alpha=self.threat.step(self.alpha),
            steps=self.steps,
            rng=rng if self.random_start else None,
            restarts=self.restarts,
            stop_when_fooled=self.stop_when_fooled,
        )
