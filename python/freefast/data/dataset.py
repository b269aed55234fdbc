"""Labelled images held as uint8 tensors, with what is needed to normalise them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from freefast.data.seeding import generator
from freefast.errors import UserError

_HELD_OUT = 2
"""In the key of what is held out; 0 and 1 are a loader's order and augmentation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images with their labels, checked.

    Raises: TypeError for a wrong dtype, ValueError for a wrong shape.
    """

    images: Tensor
    """(N, C, H, W) uint8, pixel values 0 to 255."""
    labels: Tensor
    """(N,) int64, class indices."""

    def __post_init__(self) -> None:
        for name, dtype in (("images", torch.uint8), ("labels", torch.int64)):
            if getattr(self, name).dtype != dtype:
                raise TypeError(f"Split: {name}: wanted {dtype}, got {getattr(self, name).dtype}")
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(f"Split: images: wanted (N, C, H, W), none 0, got {tuple(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"Split: labels: wanted ({len(self)},), got {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, limit: int, seed: int) -> "Split":
        """At most `limit` samples, as many of each class as can be, in their order here.

        Of two limits under one seed the larger contains the smaller.
        """
        if limit >= len(self):
            return self
        index = _balanced(self.labels, limit, generator(seed))
        return Split(images=self.images[index], labels=self.labels[index])

    def hold_out(self, count: int, seed: int) -> tuple[Tensor, "Split"]:
        """Part `count` samples from the others, the same share of each class.

        count: in [0, N)
        Returns: (N - count,) int64, places of the others, ascending; the samples that are held out
        """
        index = _stratified(self.labels, count, generator(seed, 0, _HELD_OUT))
        others = torch.ones(len(self), dtype=torch.bool)
        others[index] = False
        return others.nonzero().squeeze(1), Split(images=self.images[index], labels=self.labels[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set: train and test images of one size, class names and normalisation constants, checked.

    Raises: ValueError where the parts do not fit together.
    """

    name: str
    """The name it is loaded by."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    mean: tuple[float, ...]
    """Mean per channel, in pixel units (images in [0, 1])."""
    std: tuple[float, ...]
    """Standard deviation per channel, in pixel units."""
    train: Split
    """Images to train on."""
    test: Split
    """Images to evaluate on."""

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            shapes = " and ".join(str(tuple(split.images.shape[1:])) for split in (self.train, self.test))
            raise ValueError(f"ImageData: train and test: wanted one (C, H, W), got {shapes}")
        for split in (self.train, self.test):
            if split.labels.min() < 0 or split.labels.max() >= len(self.classes):
                raise ValueError(f"ImageData: labels: wanted 0 to {len(self.classes) - 1}, the classes")
        check_normalization(self.mean, self.std, self.channels)

    @property
    def channels(self) -> int:
        """C, the number of colour channels."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def check_normalization(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raises: UserError unless mean and std hold a number for each channel, std above 0."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(f"{name}: wanted {channels} numbers, one for each channel, got {len(values)}")
    if min(std) <= 0:
        raise UserError(f"std: wanted numbers above 0, got {tuple(std)}")


def _balanced(labels: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Places of so many samples, as many of each class as can be, ascending."""
    order, rank = _shuffled(labels, random)
    return order[torch.argsort(rank, stable=True)[:count]].sort().values


def _stratified(labels: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Places of so many samples, the same share of each class, ascending."""
    order, rank = _shuffled(labels, random)
    share = (rank + 0.5) / torch.bincount(labels)[labels[order]]
    return order[torch.argsort(share, stable=True)[:count]].sort().values


def _shuffled(labels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The places of all samples in random order, and the place of each among those of its class."""
    order = torch.randperm(len(labels), generator=random)
    by_class = torch.argsort(labels[order], stable=True)
    sizes = torch.bincount(labels)
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order, rank
