"""Projected gradient ascent with momentum that chooses its step sizes by itself."""

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

import advkernels as ak
from freefast.attacks.problem import Problem
from freefast.attacks.search import Best, ordered


def auto_pgd(
    problem: Problem, *, steps: int, rho: float, momentum: float, stop_when_fooled: bool, rng: ak.PhiloxState
) -> Tensor:
    """One run of Auto-PGD from a random start.

    rho: a step size stays where at least this share of the steps since the last checkpoint gained
    momentum: share of the new step in a move, the rest being the last move's
    stop_when_fooled: a sample leaves the batch once it is fooled

    Returns: images like `problem.x`: of those a sample came by that fool, or of all where none does, the one with the
        largest loss
    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", algorithm 1.
    """
    best = Best(problem.x)
    index = torch.arange(len(problem.x), device=problem.x.device)
    climb = _Climb.begin(problem, rng)
    best.offer(index, climb.image, climb.reached, climb.loss)
    marks = checkpoints(steps)
    for step in range(steps):
        if stop_when_fooled and climb.reached.any():
            left = (~climb.reached).nonzero().flatten()
            if len(left) == 0:
                break
            problem, climb, index = problem.take(left), climb.take(left), index[left]
        last_loss = climb.loss
        climb.move(problem, momentum if step else 1.0)
        climb.look(problem, with_gradient=step < steps - 1)
        best.offer(index, climb.image, climb.reached, climb.loss)
        if step in marks:
            climb.check(problem, rho * marks[step])
        climb.gains += climb.loss > last_loss
    return best.images


def checkpoints(steps: int) -> dict[int, int]:
    """The steps after which step sizes are checked, and how many steps each is after the one before.

    Source: Croce and Hein 2020, section 3.2: shares of all steps, in hundredths 0, 22, then 3 less far from the last
        than that was from its own, but at least 6.
    """
    shares, gap = [0], 22
    while shares[-1] + gap <= 100:
        shares.append(shares[-1] + gap)
        gap = max(gap - 3, 6)
    marks = sorted({-(-share * steps // 100) for share in shares})
    return dict(zip(marks, [0, *(late - early for early, late in pairwise(marks))], strict=True))


@dataclass
class _Climb:
    """Where the samples stand: a row a sample in every tensor, model units."""

    delta: Tensor
    last_delta: Tensor
    image: Tensor
    """x + delta."""
    gradient: Tensor
    loss: Tensor
    reached: Tensor
    best_delta: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    """(n, C or 1, 1, 1) step size."""
    gains: Tensor
    """(n,) int64, steps that gained since the last checkpoint."""
    checked_loss: Tensor
    """(n,) the best loss at the last checkpoint."""
    halved: Tensor
    """(n,) bool, whether the last checkpoint halved the step size."""

    @classmethod
    def begin(cls, problem: Problem, rng: ak.PhiloxState) -> "_Climb":
        """At a random start, with the ball's diameter for a step size."""
        x = problem.x
        image = x.clone()
        delta = problem.start(rng, out=image)
        gradient, logits = problem.gradient(image)
        loss = ordered(problem.losses(logits))
        return cls(
            delta=delta,
            last_delta=delta,
            image=image,
            gradient=gradient,
            loss=loss,
            reached=problem.reached(logits),
            best_delta=delta,
            best_gradient=gradient,
            best_loss=loss,
            size=(2 * problem.ball.radius(x)).expand(len(x), -1, 1, 1),
            gains=torch.zeros(len(x), dtype=torch.int64, device=x.device),
            checked_loss=torch.full_like(loss, float("-inf")),
            halved=torch.zeros_like(problem.labels, dtype=torch.bool),
        )

    def take(self, index: Tensor) -> "_Climb":
        """Some samples: index is (n,) int64."""
        return _Climb(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def move(self, problem: Problem, share: float) -> None:
        """A projected step, averaged with the last move and projected again; share: of the step."""
        x, delta = problem.x, self.delta
        moved = problem.ball.step_(delta.clone(), self.gradient, x, self.size)
        moved = delta + share * (moved - delta) + (1 - share) * (delta - self.last_delta)
        self.image = torch.empty_like(x)
        self.last_delta, self.delta = delta, problem.ball.project_(moved, x, out=self.image)

    def look(self, problem: Problem, *, with_gradient: bool) -> None:
        """Loss, verdict and gradient of the new images, and the best so far."""
        if with_gradient:
            self.gradient, logits = problem.gradient(self.image)
        else:
            logits = problem.logits(self.image)
        self.loss, self.reached = ordered(problem.losses(logits)), problem.reached(logits)
        better = self.loss > self.best_loss
        self.best_delta = _choose(better, self.delta, self.best_delta)
        self.best_gradient = _choose(better, self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, self.loss, self.best_loss)

    def check(self, problem: Problem, wanted: float) -> None:
        """Where too few steps gained, or nothing since the last checkpoint, back to the best with half the step size.

        wanted: number of steps that should have gained
        """
        stuck = ~self.halved & (self.checked_loss == self.best_loss)
        self.halved = (self.gains < wanted) | stuck
        self.checked_loss = self.best_loss
        self.gains = torch.zeros_like(self.gains)
        self.size = _choose(self.halved, self.size / 2, self.size)
        self.delta = _choose(self.halved, self.best_delta, self.delta)
        self.gradient = _choose(self.halved, self.best_gradient, self.gradient)
        self.loss = torch.where(self.halved, self.best_loss, self.loss)
        self.image = problem.x + self.delta


def _choose(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(n, ...) rows of one where True, else of the other."""
    return torch.where(rows.view(-1, 1, 1, 1), one, other)
