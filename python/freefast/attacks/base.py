"""The frame of an attack: check, normalise, attack in eval mode, give pixels back."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks.gradient import eval_mode
from freefast.precision import Precision
from freefast.threat import ThreatModel


class Attack(ABC):
    """An attack that is called with images and labels and returns adversarial images.

    The model is attacked in eval mode and left as it was: modes, statistics, `.grad` and `requires_grad`. The random
    numbers go on from call to call.

    model: classifier of images in [0, 1], or of normalised ones where mean and std are given
    eps: radius of the l-inf ball, pixel units
    rng: seed of the attack's own random numbers, or a state to share, on the model's device
    mean, std: what the model's images are normalised with, one a channel, pixel units
    precision: how the model computes; None asks its weights

    Raises: ValueError or TypeError where a setting, the images or the labels are not of these.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float,
        rng: int | ak.PhiloxState = 0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        precision: Precision | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError(f"{self.name}: mean and std: wanted both or neither, got mean={mean} and std={std}")
        if not 0 <= eps < float("inf"):
            raise ValueError(f"{self.name}: eps: wanted a finite radius of at least 0, got {eps}")
        if eps > 1:
            raise ValueError(f"{self.name}: eps: wanted at most 1, in pixel units, got {eps:g}: is {eps:g}/255 meant?")
        self.model = model
        self.precision = precision
        self.threat = ThreatModel(epsilon=eps, mean=tuple(mean or (0.0,)), std=tuple(std or (1.0,)))
        self._rng = rng

    @property
    def name(self) -> str:
        """The attack's class name, for messages."""
        return type(self).__name__

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Attack a batch.

        images: (N, C, H, W) float32, pixel units in [0, 1]
        labels: (N,) int64
        Returns: adversarial images like images, on the model's device
        """
        self._check(images, labels)
        device = device_of(self.model, default=images.device)
        # tensors made in inference mode cannot be differentiated: work on copies made outside it
        with torch.inference_mode(False), torch.no_grad(), eval_mode(self.model):
            pixels, targets = images.detach().to(device, copy=True), labels.to(device, copy=True)
            if len(pixels) == 0:
                return pixels
            precision = self.precision or Precision.of(self.model)
            adversarial = self._attack(self.threat.normalize(pixels), targets, precision)
            return self.threat.denormalize(adversarial).clamp_(0, 1)

    @abstractmethod
    def _attack(self, x: Tensor, labels: Tensor, precision: Precision) -> Tensor:
        """x: (N, C, H, W) float32, model units. Returns: adversarial images like x."""

    def _state(self, device: torch.device) -> ak.PhiloxState:
        if isinstance(self._rng, int):
            self._rng = ak.PhiloxState(self._rng, device)
        return self._rng

    def _check(self, images: Tensor, labels: Tensor) -> None:
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
        if images.numel() and not (images.min() >= 0 and images.max() <= 1):
            low, high = images.min().item(), images.max().item()
            raise ValueError(f"{self.name}: images: wanted pixels in [0, 1], got values from {low} to {high}")


def device_of(model: nn.Module, default: torch.device) -> torch.device:
    """The device of the model's first parameter, the default where it has none."""
    return next((parameter.device for parameter in model.parameters()), default)
