"""Training images from a data set: crop, flip, normalise and cast."""

import torch
from torch import Tensor

from advkernels.backends.reference.images import broadcast
from advkernels.backends.reference.philox import philox_words
from advkernels.bounds import Rows, split


@torch.no_grad()
def augment_(
    out: Tensor, images: Tensor, index: Tensor, state: Tensor | None, scales: Rows, padding: int, flip: bool
) -> None:
    """((pixel / 255) - mean) / std of images[index], cropped and flipped where `state` is given, stored into out."""
    mean, std = (broadcast(row, out) for row in split(scales, 2))
    pixels = images.index_select(0, index)
    if state is not None and (padding or flip):
        pixels = _crop_and_flip(pixels, philox_words(state, index), padding, flip)
    # A tensor of its own: by a number PyTorch's CUDA division multiplies with the reciprocal.
    white = torch.full((), 255.0, device=out.device)
    out.copy_(pixels.float().div_(white).sub_(mean).div_(std))


def _crop_and_flip(pixels: Tensor, words: Tensor, padding: int, flip: bool) -> Tensor:
    """A window of each image's size out of its padded self, mirrored.

    pixels: (N, C, H, W) uint8
    words: (N, 4) int64 in [0, 2**32): row, column, flip
    """
    samples, channels, height, width = pixels.shape
    top, left = (((words[:, word, None] >> 8) * (2 * padding + 1) >> 24) - padding for word in (0, 1))
    row = torch.arange(height, device=pixels.device) + top  # (N, H)
    column = torch.arange(width, device=pixels.device).expand(samples, width)
    if flip:
        column = torch.where(words[:, 2, None] >> 31 == 1, width - 1 - column, column)
    column = column + left
    inside = ((row >= 0) & (row < height))[:, None, :, None] & ((column >= 0) & (column < width))[:, None, None, :]
    sample = torch.arange(samples, device=pixels.device)[:, None, None, None]
    channel = torch.arange(channels, device=pixels.device)[:, None, None]
    row, column = row.clamp(0, max(height - 1, 0)), column.clamp(0, max(width - 1, 0))
    return torch.where(inside, pixels[sample, channel, row[:, None, :, None], column[:, None, None, :]], 0)
