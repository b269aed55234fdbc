"""The square attack."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.base import Attack, Rng
from freefast.attacks.losses import margin, targeted_cross_entropy
from freefast.attacks.problem import Problem
from freefast.attacks.search import Best, ordered, worst_case
from freefast.attacks.square_moves import L2Moves, LinfMoves, square_side
from freefast.precision import Precision
from freefast.threat import Norm


class Square(Attack):
    """Random search that changes a square of the perturbation at a time and asks for logits only.

    Each restart attacks the samples that are not fooled by then, and a sample leaves the batch once it is fooled. A
    sample that is fooled without an attack stays as it is; one that nothing fools gets the image with the largest loss.

    queries: logits that a restart may ask for of each sample
    restarts: random starts
    p_init: area of the first squares, a share of the image
    model, eps, norm, targeted, rng, mean, std, precision: as `Attack`

    Source: Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random
        search", algorithms 1 to 3; it maximises the margin, or targeted the log of the class's probability.
    """

    black_box: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float = 8 / 255,
        queries: int = 5000,
        restarts: int = 1,
        p_init: float = 0.8,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, targeted=targeted, rng=rng, mean=mean, std=std, precision=precision)
        self._at_least({"queries": (queries, 1), "restarts": (restarts, 1), "p_init": (p_init, 0)})
        self.queries = queries
        self.restarts = restarts
        self.p_init = p_init

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        problem = replace(problem, loss=targeted_cross_entropy if self.targeted else margin)
        return worst_case(problem, [lambda part, _: self._search(part, rng)] * self.restarts)

    def _search(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        moves = LinfMoves() if problem.ball.norm == "linf" else L2Moves()
        best = Best(problem.x)
        index = torch.arange(len(problem.x), device=problem.x.device)
        delta = moves.start(problem, rng)
        for query in range(self.queries):
            left = (~best.reached[index]).nonzero().flatten()
            if len(left) == 0:
                break
            if len(left) < len(index):
                problem, delta, index = problem.take(left), delta[left], index[left]
            candidate = delta
            if query:
                side = square_side(query, self.queries, self.p_init, problem.x, moves.least_side)
                candidate = moves.propose(problem, delta, side, rng)
            images = torch.empty_like(problem.x)
            problem.ball.project_(candidate, problem.x, out=images)
            logits = problem.logits(images)
            accepted = best.offer(index, images, problem.reached(logits), ordered(problem.losses(logits)))
            delta = torch.where(accepted.view(-1, 1, 1, 1), candidate, delta)
        return best.images
