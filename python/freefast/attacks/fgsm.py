"""The fast gradient sign method."""

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import functional
from freefast.attacks.base import Attack, Rng
from freefast.attacks.problem import Problem
from freefast.precision import Precision
from freefast.threat import Norm


class FGSM(Attack):
    """One step, from the image or from a random start in the ball.

    alpha: step size, pixel units; None takes eps
    random_start: start anywhere in the ball, else at the image
    model, eps, norm, targeted, rng, mean, std, precision: as `Attack`

    Source: Goodfellow et al. 2015, "Explaining and harnessing adversarial examples", section 4; Wong et al. 2020,
        "Fast is better than free", algorithm 3, for the random start.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        random_start: bool = False,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, targeted=targeted, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"alpha": (alpha, 0)})
        self.alpha = alpha
        self.random_start = random_start

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        return functional.pgd(
            problem,
            alpha=problem.ball.epsilon if self.alpha is None else self.threat.step(self.alpha),
            steps=1,
            rng=rng if self.random_start else None,
            stop_when_fooled=False,
        )
