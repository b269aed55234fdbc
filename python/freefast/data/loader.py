"""Batches of normalised images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from freefast.data.augment import Augmentation, crop_and_flip, draw
from freefast.data.dataset import Split, check_normalization
from freefast.data.seeding import generator

_ORDER, _AUGMENTATION = 0, 1


class Batch(NamedTuple):
    """n samples, on the CPU."""

    images: Tensor
    """(n, C, H, W) float32, model units: (pixels - mean) / std."""
    labels: Tensor
    """(n,) int64, class indices."""
    positions: Tensor
    """(n,) int64, places in the split."""


class Loader:
    """Every sample once an epoch, the last batch being what remains.

    Seed and epoch alone fix the order, and with the position in the split the augmentation: neither the batch
    size nor the number of workers changes what a sample gets.
    """

    def __init__(
        self,
        split: Split,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        shuffle: bool,
        augment: bool,
        seed: int,
        num_workers: int = 0,
    ) -> None:
        """
        mean, std: per channel, pixel units.
        augment: random crop with a padding of 4 pixels and random horizontal flip.
        seed: non-negative.
        num_workers: processes that prepare batches; 0 prepares them in this one.

        Raises: ValueError that says which argument is wrong.
        """
        check_normalization(mean, std, split.images.shape[1])
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size: wanted at least 1, got {batch_size}")
        if seed < 0 or num_workers < 0:
            raise ValueError(f"Loader: wanted seed and num_workers at least 0, got {seed} and {num_workers}")
        self._split = split
        self._mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._augment = augment
        self._seed = seed
        self._num_workers = num_workers

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch.

        epoch: non-negative number that, with the seed, picks order and augmentation.
        """
        batches = self._batches(epoch)
        if self._num_workers == 0:
            yield from (batches[number] for number in range(len(self)))
        else:
            unused = torch.Generator()  # without it the workers' seeds are drawn from the global one
            yield from DataLoader(batches, batch_size=None, num_workers=self._num_workers, generator=unused)

    def _batches(self, epoch: int) -> "_Batches":
        samples = len(self._split)
        order = torch.arange(samples)
        if self._shuffle:
            order = torch.randperm(samples, generator=generator(self._seed, epoch, _ORDER))
        augmentation = draw(samples, generator(self._seed, epoch, _AUGMENTATION)) if self._augment else None
        return _Batches(self._split, order.split(self._batch_size), augmentation, self._mean, self._std)


class _Batches(Dataset[Batch]):
    def __init__(
        self,
        split: Split,
        order: tuple[Tensor, ...],
        augmentation: Augmentation | None,
        mean: Tensor,
        std: Tensor,
    ) -> None:
        self._split, self._order, self._augmentation = split, order, augmentation
        self._mean, self._std = mean, std

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Batch:
        index = self._order[number]
        images = self._split.images[index]
        if self._augmentation is not None:
            images = crop_and_flip(images, self._augmentation.select(index))
        normalised = images.to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return Batch(normalised, self._split.labels[index], index)
