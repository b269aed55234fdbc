"""What an attack is up against."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.ball import Ball
from freefast.attacks.gradient import input_gradient
from freefast.attacks.health import GradientHealth
from freefast.attacks.losses import Loss, cross_entropy
from freefast.precision import FP32, Precision


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A model, a batch in model units, the ball to move in, and what to reach."""

    model: nn.Module
    """The classifier, in the mode that it is attacked in."""

    x: Tensor
    """(N, C, H, W) float32, clean images, model units."""

    labels: Tensor
    """(N,) int64: the true classes, or where `targeted` the classes to reach."""

    ball: Ball
    """Where the attack may move."""

    precision: Precision = FP32
    """How the model computes; perturbations are float32."""

    loss: Loss = cross_entropy
    """What the attack maximises."""

    targeted: bool = False
    """Whether labels are classes to reach."""

    aims: Tensor | None = None
    """(N,) int64, wrong classes that a loss of three arguments leads to, though any wrong class will do."""

    sample_index: Tensor | None = None
    """(N,) int64, numbers that a sample's random numbers hang on; None takes positions in the batch."""

    health: GradientHealth | None = None
    """Counts the gradients' zeros."""

    def take(self, index: Tensor) -> "Problem":
        """The problem of some samples: index is (n,) int64 or (N,) bool."""
        numbers = torch.arange(len(self.x), device=self.x.device) if self.sample_index is None else self.sample_index
        return replace(
            self,
            x=self.x[index],
            labels=self.labels[index],
            ball=self.ball.take(index),
            aims=None if self.aims is None else self.aims[index],
            sample_index=numbers[index],
        )

    def start(self, rng: ak.PhiloxState, out: Tensor | None = None) -> Tensor:
        """A random delta like `self.x`; out: as of `advkernels.uniform_init`."""
        return self.ball.start(self.x, rng, self.sample_index, out)

    def start_far(self, rng: ak.PhiloxState, out: Tensor | None = None) -> Tensor:
        """`start`, in the l2 ball at its surface before it meets the box."""
        if self.ball.norm == "linf":
            return self.start(rng, out)
        delta = self.ball.unboxed().start(self.x, rng, self.sample_index)
        radius = self.ball.radius(self.x)
        unit = torch.where(radius > 0, delta / radius, 0)
        length = unit.square().sum((1, 2, 3), keepdim=True).sqrt()
        delta = torch.where(length > 0, unit / length, 0) * radius
        return self.ball.project_(delta, self.x, out=out)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, classes) float32 of images like `self.x`."""
        return self.precision.logits(self.model, x)

    def losses(self, logits: Tensor) -> Tensor:
        """(N,) what the attack maximises, a number a sample."""
        return self.loss(logits, self.labels) if self.aims is None else self.loss(logits, self.labels, self.aims)

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the mean loss with respect to images like `self.x`, its length unknown; logits."""
        gradient, logits = input_gradient(self.model, x, self.losses, self.precision)
        if self.health is not None:
            self.health.add(gradient)
        return gradient, logits

    def reached(self, logits: Tensor) -> Tensor:
        """(N,) bool: fooled, or where targeted taken for the class to reach."""
        return (classify(logits) == self.labels) == self.targeted


def classify(logits: Tensor) -> Tensor:
    """(N,) int64: the class of the largest logit; -1, which is no class and so wrong, where one is NaN."""
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))
