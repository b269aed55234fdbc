"""Whether the gradients that an attack follows can be followed."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

MANY_ZEROS = 0.5


class GradientWarning(UserWarning):
    """An attack's gradients are mostly zero or not finite: its result cannot be trusted."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """What was counted."""

    zero_share: float
    """Share of the elements that are exactly zero: masked, or underflowed."""

    nonfinite: int
    """Elements that are infinite or NaN; the step's sign(NaN) is 0."""

    def warn(self, attack: str) -> None:
        """Emit a GradientWarning where the share of zeros is high, or an element was not finite."""
        if self.zero_share > MANY_ZEROS:
            text = f"{attack}: {self.zero_share:.0%} of the gradients' elements are exactly zero: masked or underflowed"
            warnings.warn(text, GradientWarning, stacklevel=2)
        if self.nonfinite:
            warnings.warn(f"{attack}: {self.nonfinite} elements of gradients not finite", GradientWarning, stacklevel=2)


class GradientHealth:
    """Counts over many gradients; on their device, so that counting does not stall it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        """(3,) int64 on the device: elements, zeros and elements not finite."""

    def add(self, gradient: Tensor) -> None:
        """Count a gradient's elements, any shape."""
        zeros = gradient.numel() - gradient.count_nonzero()
        nonfinite = gradient.numel() - gradient.isfinite().sum()
        self.counts += torch.stack([torch.full_like(zeros, gradient.numel()), zeros, nonfinite])

    def take(self) -> Health:
        """What was counted since the last time; waits for the device."""
        elements, zeros, nonfinite = self.counts.tolist()
        self.counts.zero_()
        return Health(zero_share=zeros / max(elements, 1), nonfinite=nonfinite)
