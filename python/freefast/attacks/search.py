"""Several runs of attacks: each goes on with the samples that no run before has fooled."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from freefast.attacks.problem import Problem

Run = Callable[[Problem, Tensor], Tensor]
"""Attacks some samples: their problem and their positions (n,) int64 in, adversarial images out, model units."""


class Best:
    """The best image of each sample so far: one that fools before one that does not, then the larger loss."""

    def __init__(self, x: Tensor) -> None:
        self.images = x.clone()
        self.reached = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.losses = x.new_full((len(x),), float("-inf"))

    def offer(self, index: Tensor, images: Tensor, reached: Tensor, losses: Tensor) -> Tensor:
        """Take what is better.

        index: (n,) int64, the samples
        images: (n, C, H, W); reached: (n,) bool; losses: (n,)
        Returns: (n,) bool, what was taken
        """
        more, equal = reached & ~self.reached[index], reached == self.reached[index]
        better = more | (equal & (losses > self.losses[index]))
        rows = index[better]
        self.images[rows] = images[better]
        self.reached[rows] = reached[better]
        self.losses[rows] = losses[better]
        return better


def worst_case(problem: Problem, runs: Iterable[Run]) -> Tensor:
    """The images that runs in turn find, each for the samples that are not fooled before it.

    Returns: images like `problem.x`: the first that fools, `x` itself where that does; where none does, the one with
        the largest `problem.losses`
    """
    best = Best(problem.x)
    logits = problem.logits(problem.x)
    index = torch.arange(len(problem.x), device=problem.x.device)
    best.offer(index, problem.x, problem.reached(logits), ordered(problem.losses(logits)))
    for run in runs:
        left = (~best.reached).nonzero().flatten()
        if len(left) == 0:
            break
        part = problem.take(left)
        images = run(part, left)
        logits = part.logits(images)
        best.offer(left, images, part.reached(logits), ordered(part.losses(logits)))
    return best.images


def ordered(losses: Tensor) -> Tensor:
    """Losses that compare: NaN is the smallest."""
    return losses.nan_to_num(float("-inf"), float("inf"), float("-inf"))
