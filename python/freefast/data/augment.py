"""Random crop and horizontal flip, drawn for a whole epoch at once and applied to a batch at once."""

from typing import NamedTuple

import torch
from torch import Tensor

PADDING = 4


class Augmentation(NamedTuple):
    """What happens to each sample; indexing it selects samples, so that a batch's make-up changes nothing."""

    top: Tensor
    """(N,) int64, the crop's first row in the padded image, pixels."""
    left: Tensor
    """(N,) int64, the crop's first column, pixels."""
    flip: Tensor
    """(N,) bool, mirrored left to right after the crop."""

    def select(self, index: Tensor) -> "Augmentation":
        """The samples at `index`, (n,) int64."""
        return Augmentation(self.top[index], self.left[index], self.flip[index])


def draw(samples: int, random: torch.Generator) -> Augmentation:
    """Uniform crops out of a padding of 4 pixels, and flips with probability 1/2."""
    top, left = torch.randint(0, 2 * PADDING + 1, (2, samples), generator=random)
    return Augmentation(top, left, torch.rand(samples, generator=random) < 0.5)


def crop_and_flip(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Pads by 4 black pixels on every side, crops to the old size, flips; a new tensor.

    images: (N, C, H, W) uint8, pixel values 0 to 255.
    augmentation: of these N images.
    """
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, [PADDING] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 9, 9, H, W), a view
    samples = torch.arange(len(images), device=images.device)
    cropped = windows[samples, :, augmentation.top, augmentation.left]
    return torch.where(augmentation.flip[:, None, None, None], cropped.flip(-1), cropped)
