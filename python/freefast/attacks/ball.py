"""Where an attack may move: the ball around every image of a batch, within the valid pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import advkernels as ak
from freefast.threat import Norm, ThreatModel

Bound = Sequence[float] | Tensor  # one a channel, or (N, C, 1, 1), model units


@dataclass(frozen=True)
class Ball:
    """A threat model's ball and box in model units, with the fused operations of its norm."""

    norm: Norm
    """Which length is bounded."""

    epsilon: Bound
    """Radius."""

    lower: Sequence[float]
    """Pixel 0, one a channel."""

    upper: Sequence[float]
    """Pixel 1, one a channel."""

    @classmethod
    def of(cls, threat: ThreatModel, epsilon: Tensor | None = None) -> "Ball":
        """The ball of a threat model.

        epsilon: (N,) float32, pixel units, a radius for each sample; None takes the threat model's
        """
        radius = threat.model_epsilon if epsilon is None else threat.steps(epsilon)
        return cls(threat.norm, radius, threat.lower, threat.upper)

    def take(self, index: Tensor) -> "Ball":
        """The ball of some samples: index is (n,) int64 or (N,) bool."""
        return replace(self, epsilon=self.epsilon[index]) if isinstance(self.epsilon, Tensor) else self

    def unboxed(self) -> "Ball":
        """The ball without the box."""
        return replace(self, lower=(float("-inf"),), upper=(float("inf"),))

    def of_radius(self, epsilon: Bound) -> "Ball":
        """The ball of another radius, model units."""
        return replace(self, epsilon=epsilon)

    def without_radius(self) -> "Ball":
        """The box alone."""
        return self.of_radius((torch.finfo(torch.float32).max,))

    def radius(self, like: Tensor) -> Tensor:
        """The radius as a tensor (N or 1, C or 1, 1, 1) on the device of like."""
        if isinstance(self.epsilon, Tensor):
            return self.epsilon
        return torch.tensor(self.epsilon, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)

    def start(
        self, x: Tensor, rng: ak.PhiloxState, sample_index: Tensor | None = None, out: Tensor | None = None
    ) -> Tensor:
        """A random delta like x: uniform in the l-inf ball, of uniform direction and length in the l2 ball.

        sample_index, out: as of `advkernels.uniform_init`
        """
        init = ak.uniform_init if self.norm == "linf" else ak.l2_init
        return init(x, self.epsilon, self.lower, self.upper, rng=rng, sample_index=sample_index, out=out)

    def step_(
        self, delta: Tensor, gradient: Tensor, x: Tensor, alpha: Bound | float,
        mask: Tensor | None = None, out: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Steepest ascent by alpha (model units) in the ball's norm, then back into ball and box; in place.

        mask, out: as of `advkernels.sign_step_`
        """
        step = ak.sign_step_ if self.norm == "linf" else ak.l2_step_
        return step(delta, gradient, x, alpha, self.epsilon, self.lower, self.upper, mask=mask, out=out)

    def project_(self, delta: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Into ball and box, in place: a step of length 0, whatever its gradient."""
        return self.step_(delta, x, x, 0.0, out=out)
