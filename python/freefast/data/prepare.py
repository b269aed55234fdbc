"""From a split's pixels to a batch for the model: one function, the same numbers on every device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from freefast.data.augment import Augmentation, crop_and_flip


class Normalization(NamedTuple):
    """(pixels - mean) / std, on the device of the images."""

    white: Tensor
    """() float32, 255: CUDA divides by a number from the host by multiplying with its rounded reciprocal."""
    mean: Tensor
    """(C, 1, 1) float32, pixel units."""
    std: Tensor
    """(C, 1, 1) float32, pixel units."""

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> "Normalization":
        """mean, std: one a channel, pixel units."""
        rows = (torch.tensor(row, dtype=torch.float32, device=device).view(-1, 1, 1) for row in (mean, std))
        return cls(torch.tensor(255, dtype=torch.float32, device=device), *rows)


def prepare(images: Tensor, index: Tensor, augmentation: Augmentation | None, normalization: Normalization) -> Tensor:
    """Gather, crop, flip and normalise a batch; nothing waits for the device.

    images: (N, C, H, W) uint8, pixel values 0 to 255
    index: (n,) int64, places in images
    augmentation: of all N images; None leaves them as they are
    normalization: likewise on the device of the images

    Returns: (n, C, H, W) float32, model units, channels last
    """
    batch = images.index_select(0, index)
    if augmentation is not None:
        batch = crop_and_flip(batch, augmentation.select(index))
    batch = batch.contiguous(memory_format=torch.channels_last).to(torch.float32)
    return batch.div_(normalization.white).sub_(normalization.mean).div_(normalization.std)
