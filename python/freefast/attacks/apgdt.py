"""Auto-PGD, one wrong class after the other."""

from dataclasses import replace
from functools import partial
from typing import get_args

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.auto_pgd import auto_pgd
from freefast.attacks.base import Attack, Rng
from freefast.attacks.losses import LossName, aimed_cross_entropy, aimed_dlr, without
from freefast.attacks.problem import Problem
from freefast.attacks.search import worst_case
from freefast.precision import Precision
from freefast.threat import Norm

_LOSSES = {"ce": aimed_cross_entropy, "dlr": aimed_dlr}


class APGDT(Attack):
    """APGD towards each of the wrong classes that the model holds most likely of the clean image.

    Labels are the true classes, and any wrong class counts. Each run attacks the samples that are not fooled by then.
    A sample that is fooled without an attack stays as it is; one that nothing fools gets the image with the largest
    cross-entropy.

    steps: number of steps towards a class
    restarts: random starts towards a class
    target_classes: wrong classes to try, all where there are fewer
    loss: "dlr", the targeted difference of logits ratio, which wants 4 classes, or "ce", the log of the class's
        probability
    rho, momentum: as `APGD`
    model, eps, norm, rng, mean, std, precision: as `Attack`

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", section 4 and equation 7.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        steps: int = 100,
        restarts: int = 1,
        target_classes: int = 9,
        loss: LossName = "dlr",
        rho: float = 0.75,
        momentum: float = 0.75,
        norm: Norm = "linf",
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"steps": (steps, 1), "restarts": (restarts, 1), "target_classes": (target_classes, 1)})
        self._at_least({"rho": (rho, 0), "momentum": (momentum, 0)})
        self._one_of("loss", loss, get_args(LossName))
        self.steps = steps
        self.restarts = restarts
        self.target_classes = target_classes
        self.loss = loss
        self.rho = rho
        self.momentum = momentum

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        others = without(problem.logits(problem.x), problem.labels)
        count = min(self.target_classes, others.shape[1] - 1)
        likely = others.topk(count, 1).indices  # (N, count)

        def towards(rank: int, part: Problem, index: Tensor) -> Tensor:
            return auto_pgd(
                replace(part, loss=_LOSSES[self.loss], aims=likely[index, rank]),
                steps=self.steps,
                rho=self.rho,
                momentum=self.momentum,
                stop_when_fooled=True,
                rng=rng,
            )

        ranks = [rank for rank in range(count) for _ in range(self.restarts)]
        return worst_case(problem, [partial(towards, rank) for rank in ranks])
