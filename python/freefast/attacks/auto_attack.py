"""The ensemble AutoAttack, without FAB."""

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.apgd import APGD
from freefast.attacks.apgdt import APGDT
from freefast.attacks.base import Attack, Rng
from freefast.attacks.losses import LossName
from freefast.attacks.problem import Problem
from freefast.attacks.search import Run, worst_case
from freefast.attacks.square import Square
from freefast.precision import Precision
from freefast.threat import Norm


class AutoAttackWithoutFAB(Attack):
    """APGD on cross-entropy, then APGDT, then Square, each on the samples that none before has fooled.

    AutoAttack's third part, FAB-T, is left out: accuracies are upper bounds of AutoAttack's. A sample that is fooled
    without an attack stays as it is; one that nothing fools gets the image with the largest cross-entropy. The targeted
    DLR loss wants 4 classes: with fewer APGDT maximises the log of the class's probability.

    steps: of each run of APGD and APGDT
    queries: of Square
    model, eps, norm, rng, mean, std, precision: as `Attack`

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", section 6, for parts and budgets.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        steps: int = 100,
        queries: int = 5000,
        norm: Norm = "linf",
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"steps": (steps, 1), "queries": (queries, 1)})
        self.steps = steps
        self.queries = queries

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        classes = problem.logits(problem.x[:1]).shape[1]
        parts = self._parts("dlr" if classes >= 4 else "ce")

        def run(part: Attack) -> Run:
            return lambda left, _: part._attack(left, rng)

        return worst_case(problem, [run(part) for part in parts])

    def _parts(self, loss: LossName) -> tuple[Attack, ...]:
        return (
            APGD(self.model, steps=self.steps),
            APGDT(self.model, steps=self.steps, loss=loss),
            Square(self.model, queries=self.queries),
        )
