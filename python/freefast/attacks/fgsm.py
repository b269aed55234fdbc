"""The fast gradient sign method."""

from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import functional
from freefast.attacks.base import Attack
from freefast.precision import Precision


class FGSM(Attack):
    """One sign step, from the image or from a random start in the ball.

    alpha: step size, pixel units; None takes eps
    random_start: start anywhere in the ball, else at the image
    model, eps, rng, mean, std, precision: as `Attack`

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
        rng: int | ak.PhiloxState = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, rng=rng, mean=mean, std=std, precision=precision)
        if alpha is not None and not 0 <= alpha < float("inf"):
            raise ValueError(f"FGSM: alpha: wanted at least 0, got {alpha}")
        self.alpha = eps if alpha is None else alpha
        self.random_start = random_start

    def _attack(self, x: Tensor, labels: Tensor, precision: Precision) -> Tensor:
        return functional.pgd(
            self.model,
            x,
            labels,
            self.threat,
            alpha=self.alpha,
            steps=1,
            rng=self._state(x.device) if self.random_start else None,
            stop_when_fooled=False,
            precision=precision,
        )
