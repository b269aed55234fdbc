"""The threat model: pixel units in, model units out."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """An l-inf or l2 ball around every image, within the valid pixels [0, 1].

    A model reads normalised images, (pixel - mean) / std. Every bound in model units is the float32 number that
    PyTorch computes as `(0 - mean) / std`, `(1 - mean) / std` and `size / std` from float32 tensors mean and std, each
    operation rounded, a number divided by a tensor being its product with the tensor's rounded reciprocal; a Python
    float holds that number exactly.

    Raises: ValueError where epsilon is negative or not finite, or mean and std do not match or std is not positive.
    Source: Wong et al. 2020, "Fast is better than free", section 3.
    """

    epsilon: float
    """Radius of the ball, pixel units."""

    mean: tuple[float, ...] = (0.0,)
    """Mean the model's images are normalised with, one a channel or one for all, pixel units."""

    std: tuple[float, ...] = (1.0,)
    """Standard deviation likewise, pixel units."""

    norm: Norm = "linf"
    """Which length of a perturbation the radius bounds."""

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"ThreatModel: epsilon: wanted a finite radius of at least 0, got {self.epsilon}")
        if self.norm not in get_args(Norm):
            raise ValueError(f"ThreatModel: norm: wanted linf or l2, got {self.norm!r}")
        if self.epsilon > 1 and self.norm == "linf":
            wanted = "at most 1, in pixel units"
            raise ValueError(
                f"ThreatModel: epsilon: wanted {wanted}, got {self.epsilon:g}: is {self.epsilon:g}/255 meant?"
            )
        if not self.mean or len(self.mean) != len(self.std):
            wanted = "as many as mean, at least one"
            raise ValueError(f"ThreatModel: std: wanted {wanted}, got {len(self.std)} for {len(self.mean)}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"ThreatModel: std: wanted values above 0, got {self.std}")

    @cached_property
    def model_epsilon(self) -> tuple[float, ...]:
        """Radius, model units, one a channel."""
        return self.step(self.epsilon)

    @cached_property
    def lower(self) -> tuple[float, ...]:
        """Pixel 0 in model units, one a channel."""
        return self._limit(0)

    @cached_property
    def upper(self) -> tuple[float, ...]:
        """Pixel 1 in model units, one a channel."""
        return self._limit(1)

    def step(self, size: float) -> tuple[float, ...]:
        """A step size in model units, one a channel.

        size: pixel units
        """
        return tuple((np.float32(size) * (np.float32(1) / np.array(self.std, np.float32))).tolist())

    def steps(self, sizes: Tensor) -> Tensor:
        """Sizes (N,) float32, pixel units, in model units: (N, C, 1, 1)."""
        return sizes.view(-1, 1, 1, 1) * (1 / self._channels(self.std, sizes))

    def normalize(self, images: Tensor) -> Tensor:
        """images: (N, C, H, W) float, pixel units. Returns: the same in model units."""
        return (images - self._channels(self.mean, images)) / self._channels(self.std, images)

    def denormalize(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) float, model units. Returns: the same in pixel units."""
        return x * self._channels(self.std, x) + self._channels(self.mean, x)

    def _limit(self, pixel: int) -> tuple[float, ...]:
        return tuple(((np.float32(pixel) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)).tolist())

    @staticmethod
    def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
