"""PGD on many samples by continuous batching: whoever is done leaves its slot to the next."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.ball import Ball
from freefast.attacks.health import GradientHealth
from freefast.attacks.problem import Problem, classify
from freefast.data.dataset import to_pixels
from freefast.precision import Precision
from freefast.threat import ThreatModel

RESTART = 2**32
"""A sample's restart r has the noise of sample number r * RESTART + its own."""

_MARK_EVERY = 4
"""Steps from one mark to the next: circles of 1, 2 or 4 steps are found."""

_LOOK_EVERY = 8
"""Iterations on a device before the host asks it what is done: asking stalls it."""

_TELL_EVERY = 0.2
"""Seconds from one word about what is done to the next."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every sample goes through."""

    threat: ThreatModel
    """Ball and box."""

    alpha: float
    """Step size, pixel units."""

    steps: tuple[int, ...]
    """Numbers of steps to give a verdict after, ascending: PGD with fewer steps is the beginning of PGD with more."""

    restarts: int = 1
    """Random starts."""

    worst_case: bool = False
    """Fooled by any restart is fooled; else a sample keeps the restart with the largest loss, fooled or not."""

    full: bool = False
    """Make every step; else a sample stops moving once it is fooled."""

    seed: int = 0
    """Of the random starts."""

    skip: bool = True
    """Leave out steps that repeat earlier ones; for a model that answers the same image the same each time."""


@dataclass(frozen=True)
class Outcome:
    """What PGD did to n samples, for K numbers of steps; one row more, which idle slots write to."""

    prediction: Tensor
    """(n, K) int64: the class at the iterate that counts."""

    fooled_step: Tensor
    """(n,) int64: step at which it was first wrong, of the most steps, 0 the random start.

    -1 where it is right, or there are no steps.
    """

    done: Tensor
    """(n,) bool: whether the sample has left."""

    def known(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the samples that are done: which of the n `rows` they are, prediction, fooled_step."""
        done = self.done[:-1]
        return rows[done.to(rows.device)], self.prediction[:-1][done], self.fooled_step[:-1][done]


class Engine:
    """A batch of slots, each with a sample, its restart and its step; the shapes stay while samples wait.

    An iteration is one forward and one backward pass of all slots. Nothing in it waits for the device. A sample's
    noise depends on its number alone; its verdicts do not depend on slots, order or batch size, but for the rounding
    of convolutions over batches of another size. A sample that withstands the attack may come back to an earlier
    iterate and go round in a circle from there: whole rounds are left out.

    images: (n, C, H, W) uint8, pixels, on the model's device
    labels: (n,) int64
    numbers: (n,) int64, what the noise of each goes by
    slots: samples at a time
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        numbers: Tensor,
        plan: Plan,
        *,
        slots: int,
        precision: Precision,
        health: GradientHealth | None = None,
    ) -> None:
        samples, device = len(images), images.device
        slots = min(slots, samples)
        self._plan, self._images, self._labels, self._numbers = plan, images, labels, numbers
        self._alpha = plan.threat.step(plan.alpha)
        self._counts = torch.tensor(plan.steps, device=device)
        self._rng = ak.PhiloxState(plan.seed, device)
        self.outcome = Outcome(
            prediction=torch.full((samples + 1, len(plan.steps)), -1, device=device),
            fooled_step=torch.full((samples + 1,), -1, device=device),
            done=torch.zeros(samples + 1, dtype=torch.bool, device=device),
        )
        self._best = torch.full((samples + 1, len(plan.steps)), -torch.inf, device=device)
        self._on_cpu = device.type == "cpu"
        self._next, self._done = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self._sample = torch.full((slots,), samples, device=device)
        self._restart, self._step = (torch.zeros(slots, dtype=torch.int64, device=device) for _ in range(2))
        x = torch.zeros(slots, *images.shape[1:], device=device).to(memory_format=torch.channels_last)
        self._delta, self._adversarial, self._mark = (torch.zeros_like(x) for _ in range(3))
        self._mark_step, self._first = torch.zeros_like(self._step), torch.full_like(self._step, -1)
        self._problem = Problem(
            model=model, x=x, labels=torch.zeros(slots, dtype=torch.int64, device=device),
            ball=Ball.of(plan.threat), precision=precision, health=health,
        )  # fmt: skip
        everyone = torch.ones(slots, dtype=torch.bool, device=device)
        self._enter(leave=everyone, begin=everyone)

    @torch.no_grad()
    def run(self) -> Iterator[Outcome]:
        """Attack all samples; yields now and then, and at the end, what is known."""
        samples, iteration, told = len(self._images), 0, time.monotonic()
        while True:
            self._iterate()
            iteration += 1
            if not self._on_cpu and iteration % _LOOK_EVERY:
                continue
            done = int(self._done)
            if done == samples or time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                yield self.outcome
            if done == samples:
                return
            self._shrink(samples - done)

    def _iterate(self) -> None:
        """One gradient for every slot, what it says of the iterate, and a step from there."""
        gradient, logits = self._problem.gradient(self._adversarial)
        fooled = self._problem.reached(logits)
        over = self._step == self._plan.steps[-1]
        if not self._plan.full:
            over |= fooled
        self._record(logits, fooled)
        again = over & (self._restart + 1 < self._plan.restarts)
        if self._plan.worst_case:
            again &= (self.outcome.prediction[self._sample] == self._problem.labels.unsqueeze(1)).any(1)
        self._problem.ball.step_(self._delta, gradient, self._problem.x, self._alpha, mask=~over, out=self._adversarial)
        self._step += 1
        if self._plan.skip:
            self._leave_out_rounds()
        self._restart += again
        self._enter(leave=over & ~again, begin=over)

    def _leave_out_rounds(self) -> None:
        """Go on just before the next verdict where the iterate is the marked one: every round is like the last."""
        back = (self._mark_step > 0) & (self._delta == self._mark).all(3).all(2).all(1)
        length = (self._step - self._mark_step).clamp(min=1)
        due = self._counts[torch.searchsorted(self._counts, self._step).clamp(max=len(self._counts) - 1)]
        rounds = (due - self._step).clamp(min=0) // length
        self._step += torch.where(back, rounds * length, 0)
        mark = back | (self._step % _MARK_EVERY == 0)
        self._mark_step.copy_(torch.where(mark, self._step, self._mark_step))
        self._mark.copy_(torch.where(mark.view(-1, 1, 1, 1), self._delta, self._mark))

    def _record(self, logits: Tensor, fooled: Tensor) -> None:
        """Keep the verdicts that the iterate stands for."""
        prediction, step, sample = classify(logits).unsqueeze(1), self._step.unsqueeze(1), self._sample
        counts = step == self._counts  # (slots, K)
        if not self._plan.full:
            counts |= fooled.unsqueeze(1) & (step <= self._counts)
        if self._plan.restarts > 1:
            loss = self._problem.losses(logits).nan_to_num(torch.inf).unsqueeze(1)  # NaN is wrong
            best = self._best[sample]
            if self._plan.worst_case:
                loss = fooled.unsqueeze(1).to(loss.dtype)
                counts &= loss > best
            else:
                counts &= loss >= best
            self._best[sample] = torch.where(counts, loss, best)
        outcome = self.outcome
        outcome.prediction[sample] = torch.where(counts, prediction, outcome.prediction[sample])
        self._first.copy_(torch.where(fooled & (self._first < 0), self._step, self._first))
        first = torch.where(fooled, self._first, -1)
        outcome.fooled_step[sample] = torch.where(counts[:, -1], first, outcome.fooled_step[sample])

    def _enter(self, leave: Tensor, begin: Tensor) -> None:
        """Let the next samples into the slots of those that leave, and draw noise for all that begin."""
        if self._on_cpu and not begin.any():
            return
        samples, problem = len(self._images), self._problem
        self._done += (leave & (self._sample < samples)).sum()
        self.outcome.done[self._sample] |= leave
        rank = leave.cumsum(0)
        self._sample.copy_(torch.where(leave, (self._next + rank - 1).clamp(max=samples), self._sample))
        self._next += rank[-1]
        self._restart.masked_fill_(leave, 0)
        self._step.masked_fill_(begin, 0)
        self._mark_step.masked_fill_(begin, 0)
        self._first.masked_fill_(begin, -1)
        known = self._sample.clamp(max=samples - 1)  # an idle slot repeats the last sample
        problem.labels.copy_(self._labels[known])
        problem.x.copy_(self._plan.threat.normalize(to_pixels(self._images[known])))
        adversarial = torch.empty_like(problem.x)
        self._rng.seek(0)
        delta = problem.ball.start(problem.x, self._rng, self._numbers[known] + self._restart * RESTART, adversarial)
        mask = begin.view(-1, 1, 1, 1)
        self._delta.copy_(torch.where(mask, delta, self._delta))
        self._adversarial.copy_(torch.where(mask, adversarial, self._adversarial))

    def _shrink(self, left: int) -> None:
        """Give up idle slots where they are many; waits for the device."""
        slots = len(self._sample)
        if left > slots - max(slots // 8, 1):
            return
        live = (self._sample < len(self._images)).nonzero().squeeze(1)
        self._sample, self._restart = self._sample[live], self._restart[live]
        self._step, self._mark_step, self._first = (t[live] for t in (self._step, self._mark_step, self._first))
        images = (self._delta, self._adversarial, self._mark)
        self._delta, self._adversarial, self._mark = (_take(image, live) for image in images)
        problem = self._problem
        self._problem = replace(problem, x=_take(problem.x, live), labels=problem.labels[live])


def _take(images: Tensor, index: Tensor) -> Tensor:
    return images[index].contiguous(memory_format=torch.channels_last)
