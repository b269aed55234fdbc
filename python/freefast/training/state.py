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
from freefast.training.average import WeightAverage
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

    Of free, and of fast with delta_init "previous"; a smaller batch uses its first samples. Steps see images of its
    height and width.
    """

    precision: Precision = FP32
    """How the model computes."""

    label_smoothing: float = 0.0
    """Share of the loss's target that all classes have in equal parts."""

    weight_average: float = 0.0
    """Decay of the weights' average; 0 keeps none."""

    compiled: nn.Module | None = None
    """The model as torch.compile has it, for the steps alone; None where they take the model itself."""

    average: WeightAverage | None = field(init=False)
    """The weights' average."""

    scaler: torch.amp.GradScaler = field(init=False)
    """The loss scale."""

    health: GradientHealth = field(init=False)
    """Counts of the attack's gradients."""

    def __post_init__(self) -> None:
        self.scaler = self.precision.make_scaler(self.delta.device)
        self.health = GradientHealth(self.delta.device)
        keeps = self.weight_average > 0
        self.average = WeightAverage(self.model, self.optimizer, self.weight_average) if keeps else None

    @property
    def network(self) -> nn.Module:
        """What the steps call."""
        return self.model if self.compiled is None else self.compiled

    def final_model(self) -> nn.Module:
        """What the run is evaluated by and leaves: the model, or a copy of it with the averaged weights."""
        return self.model if self.average is None else self.average.averaged_model()

    def resize(self, size: tuple[int, int]) -> None:
        """Train on images of height and width `size` from here on; the lasting perturbation begins at 0 again."""
        if self.delta.shape[2:] != size:
            delta = self.delta.new_zeros((*self.delta.shape[:2], *size))
            self.delta = delta.contiguous(memory_format=torch.channels_last)

    def fit(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 in the size that is trained on, by antialiased bilinear interpolation."""
        size = self.delta.shape[2:]
        if images.shape[2:] == size:
            return images
        resized = F.interpolate(images, size=tuple(size), mode="bilinear", antialias=True)
        return resized.contiguous(memory_format=torch.channels_last)

    def problem(self, images: Tensor, labels: Tensor) -> Problem:
        """What an attack on a batch is up against; images: (N, C, H, W) float32, model units."""
        return Problem(
            model=self.network,
            x=images,
            labels=labels,
            ball=Ball.of(self.threat),
            precision=self.precision,
            health=self.health,
        )

    def loss(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits (N, classes), float32, of x: (N, C, H, W) float32, model units.

        Source: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7, for label
            smoothing. Attacks of their own keep to plain cross-entropy, as in Pang et al. 2021, "Bag of tricks for
            adversarial training"; free's, which shares its backward pass with the update, is of this loss.
        """
        logits = self.precision.logits(self.network, x)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits

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
        tensors += [] if self.average is None else self.average.tensors
        return [tensor for tensor in tensors if isinstance(tensor, Tensor)]

    def backward(self, loss: Tensor) -> None:
        """Put the scaled loss's gradients in the place of the last ones, which go first: nothing is added to them."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        """Step optimiser, loss scale, schedule and average; with a scale, gradients that overflow leave the weights
        alone."""
        self.scaler.step(self.optimizer)
        self.scaler.update(self.precision.fixed_scale)
        self.scheduler.step()
        if self.average is not None:
            self.average.update()
