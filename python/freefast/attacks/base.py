"""The frame of an attack: check, normalise, attack in eval mode, give pixels back."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.ball import Ball
from freefast.attacks.gradient import eval_mode
from freefast.attacks.health import GradientHealth
from freefast.attacks.losses import cross_entropy, targeted_cross_entropy
from freefast.attacks.problem import Problem
from freefast.precision import Precision
from freefast.threat import Norm, ThreatModel

Rng = int | torch.Generator | ak.PhiloxState


class Attack(ABC):
    """An attack that is called with images and labels and returns adversarial images.

    The model is attacked in eval mode and left as it was: modes, statistics, `.grad` and `requires_grad`. The random
    numbers go on from call to call.

    model: classifier of images in [0, 1], or of normalised ones where mean and std are given
    eps: radius of the ball, pixel units
    norm: "linf" or "l2", the length that eps bounds
    targeted: labels are the classes to reach, else the true ones to leave
    rng: seed of the attack's own random numbers, or a state to share, on the model's device
    mean, std: what the model's images are normalised with, one a channel, pixel units
    precision: how the model computes; None asks its weights

    Raises: ValueError or TypeError where a setting, the images or the labels are not of these.
    """

    black_box: ClassVar[bool] = False
    """Whether the attack does without gradients."""

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float,
        norm: Norm = "linf",
        targeted: bool = False,
        rng: Rng = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError(f"{self.name}: mean and std: wanted both or neither, got mean={mean} and std={std}")
        self._one_of("norm", norm, get_args(Norm))
        if not 0 <= eps < float("inf"):
            raise ValueError(f"{self.name}: eps: wanted a finite radius of at least 0, got {eps}")
        if eps > 1 and norm == "linf":
            raise ValueError(f"{self.name}: eps: wanted at most 1, in pixel units, got {eps:g}: is {eps:g}/255 meant?")
        self.model = model
        self.precision = precision
        self.targeted = targeted
        self.threat = ThreatModel(epsilon=eps, mean=tuple(mean or (0.0,)), std=tuple(std or (1.0,)), norm=norm)
        self._rng = rng

    @property
    def name(self) -> str:
        """The attack's class name, for messages."""
        return type(self).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """All but the model and the random numbers."""
        return {name: value for name, value in vars(self).items() if name not in ("model", "_rng")}

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        eps: Tensor | None = None,
        rng: Rng | None = None,
        sample_index: Tensor | None = None,
    ) -> Tensor:
        """Attack a batch.

        images: (N, C, H, W) float32, pixel units in [0, 1]
        labels: (N,) int64
        eps: (N,) float, pixel units, a radius for each sample; None takes the attack's
        rng: of this call alone; None goes on with the attack's own
        sample_index: (N,) int64, numbers that the samples' random numbers hang on; None takes positions in the batch

        Returns: adversarial images like images, on the model's device
        """
        self._check(images, labels, eps)
        device = device_of(self.model, default=images.device)
        # tensors made in inference mode cannot be differentiated: work on copies made outside it
        with torch.inference_mode(False), torch.no_grad(), eval_mode(self.model):
            pixels, targets = images.detach().to(device, copy=True), labels.to(device, copy=True)
            if len(pixels) == 0:
                return pixels
            radius = None if eps is None else eps.detach().to(device, torch.float32, copy=True)
            health = GradientHealth(device)
            problem = Problem(
                model=self.model,
                x=self.threat.normalize(pixels),
                labels=targets,
                ball=Ball.of(self.threat, radius),
                precision=self.precision or Precision.of(self.model),
                loss=targeted_cross_entropy if self.targeted else cross_entropy,
                targeted=self.targeted,
                sample_index=None if sample_index is None else sample_index.to(device),
                health=health,
            )
            adversarial = self._attack(problem, self._state(rng, device))
            health.take().warn(self.name)
            return self.threat.denormalize(adversarial).clamp_(0, 1)

    @abstractmethod
    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        """Returns: adversarial images like `problem.x`, model units."""

    def _at_least(self, settings: dict[str, tuple[float | None, float]]) -> None:
        """Settings by name, with the least that each may be; None is not set."""
        for name, (value, least) in settings.items():
            if value is not None and not least <= value < float("inf"):
                raise ValueError(f"{self.name}: {name}: wanted at least {least}, got {value}")

    def _one_of(self, name: str, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            raise ValueError(f"{self.name}: {name}: wanted {' or '.join(known)}, got {value!r}")

    def _state(self, rng: Rng | None, device: torch.device) -> ak.PhiloxState:
        """A call's random state, the attack's own where none is given."""
        state = make_state(self._rng if rng is None else rng, device)
        if rng is None:
            self._rng = state
        return state

    def _check(self, images: Tensor, labels: Tensor, eps: Tensor | None) -> None:
        if images.dtype != torch.float32:
            raise TypeError(f"{self.name}: images: wanted float32 pixels in [0, 1], got {images.dtype}")
        if images.dim() != 4 or len(self.threat.mean) not in (1, images.shape[1]):
            channels = "C" if len(self.threat.mean) == 1 else len(self.threat.mean)
            raise ValueError(f"{self.name}: images: wanted (N, {channels}, H, W), got {tuple(images.shape)}")
        if labels.dtype != torch.int64:
            raise TypeError(f"{self.name}: labels: wanted int64, got {labels.dtype}")
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"{self.name}: labels: wanted shape ({len(images)},), one a sample, got {tuple(labels.shape)}"
            )
        if len(labels) and labels.min() < 0:
            raise ValueError(f"{self.name}: labels: wanted classes from 0, got {labels.min().item()}")
        if images.numel() and not (images.min() >= 0 and images.max() <= 1):
            low, high = images.min().item(), images.max().item()
            raise ValueError(f"{self.name}: images: wanted pixels in [0, 1], got values from {low} to {high}")
        if eps is not None and (not isinstance(eps, Tensor) or eps.shape != labels.shape):
            got = tuple(eps.shape) if isinstance(eps, Tensor) else eps
            raise ValueError(f"{self.name}: eps: wanted a tensor of shape ({len(images)},), one a sample, got {got}")
        if eps is not None and not (eps >= 0).logical_and(eps < float("inf")).all():
            raise ValueError(f"{self.name}: eps: wanted finite radii of at least 0, got {eps.tolist()}")
        if eps is not None and self.threat.norm == "linf" and (eps > 1).any():
            raise ValueError(f"{self.name}: eps: wanted at most 1, in pixel units, got {eps.tolist()}")


def make_state(rng: Rng, device: torch.device) -> ak.PhiloxState:
    """A random state: the given one, one of the given seed, or one of a seed that the generator draws."""
    if isinstance(rng, torch.Generator):
        rng = int(torch.randint(2**63 - 1, (), generator=rng, device=rng.device))
    return rng if isinstance(rng, ak.PhiloxState) else ak.PhiloxState(rng, device)


def device_of(model: nn.Module, default: torch.device) -> torch.device:
    """The device of the model's first parameter, the default where it has none."""
    return next((parameter.device for parameter in model.parameters()), default)
