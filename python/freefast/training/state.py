"""What the updates of a training run read and write."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.ball import Ball
from freefast.attacks.health import GradientHealth
from freefast.attacks.problem import Problem
from freefast.precision import FP32, Precision
from freefast.threat import ThreatModel
from freefast.training.schedules import Scheduler


@dataclass(kw_only=True)
class TrainState:
    """A training run between two updates."""

    model: nn.Module
    """The classifier, in train mode."""

    optimizer: ak.MasterSGD
    """Updates the model's weights."""

    scheduler: Scheduler
    """Sets the learning rate, stepped once an update."""

    threat: ThreatModel
    """The ball and the valid box."""

    rng: ak.PhiloxState
    """Random starts of the perturbations."""

    delta: Tensor
    """(batch_size, C, H, W) float32, model units: the perturbation that lives on from batch to batch.

    Of free, and of fast with delta_init "previous"; a smaller batch uses its first samples.
    """

    precision: Precision = FP32
    """How the model computes."""

    scaler: torch.amp.GradScaler = field(init=False)
    """The loss scale."""

    health: GradientHealth = field(init=False)
    """Counts of the attack's gradients."""

    def __post_init__(self) -> None:
        self.scaler = self.precision.make_scaler(self.delta.device)
        self.health = GradientHealth(self.delta.device)

    def problem(self, images: Tensor, labels: Tensor) -> Problem:
        """What an attack on a batch is up against; images: (N, C, H, W) float32, model units."""
        return Problem(
            model=self.model,
            x=images,
            labels=labels,
            ball=Ball.of(self.threat),
            precision=self.precision,
            health=self.health,
        )

    def loss(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits (N, classes), float32, of x: (N, C, H, W) float32, model units."""
        logits = self.precision.logits(self.model, x)
        return F.cross_entropy(logits, labels), logits

    @property
    def updates(self) -> int:
        """Updates made so far, without those that were left out; waits for the device."""
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    @property
    def tensors(self) -> list[Tensor]:
        """What updates read and write in place, gradients left out: each update makes them anew."""
        kept = [state[name] for state in self.optimizer.state.values() for name in sorted(state)]
        scale = [getattr(self.scaler, name, None) for name in ("_scale", "_growth_tracker")]
        tensors = [*self.model.parameters(), *self.model.buffers(), *kept, *scale, *self.scheduler.tensors]
        tensors += [self.delta, self.rng.tensor, self.health.counts]
        return [tensor for tensor in tensors if isinstance(tensor, Tensor)]

    def backward(self, loss: Tensor) -> None:
        """Put the scaled loss's gradients in the place of the last ones, which go first: nothing is added to them."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        """Step optimiser, loss scale and schedule; with a scale, gradients that overflow leave the weights alone."""
        self.scaler.step(self.optimizer)
        self.scaler.update(self.precision.fixed_scale)
        self.scheduler.step()
