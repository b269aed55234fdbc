"""Batches of normalised images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from freefast.data.augment import Augmentation, draw
from freefast.data.dataset import Split, check_normalization
from freefast.data.prepare import Normalization, prepare
from freefast.data.seeding import generator

_ORDER, _AUGMENTATION = 0, 1


class Batch(NamedTuple):
    """n samples, on the CPU."""

    images: Tensor
    """(n, C, H, W) float32, model units: (pixels - mean) / std, channels last."""
    labels: Tensor
    """(n,) int64, class indices."""
    positions: Tensor
    """(n,) int64, places in the split."""


class Epoch(NamedTuple):
    """What an epoch does with N samples, on the CPU."""

    order: Tensor
    """(N,) int64, places in the split, batch after batch."""
    augmentation: Augmentation | None
    """By the place in the split; None leaves the images as they are."""


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
        pin: bool = False,
    ) -> None:
        """
        mean, std: per channel, pixel units.
        augment: random crop with a padding of 4 pixels and random horizontal flip.
        seed: non-negative.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        pin: give batches in page-locked memory, which a CUDA device copies by itself.

        Raises: ValueError that says which argument is wrong.
        """
        check_normalization(mean, std, split.images.shape[1])
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size: wanted at least 1, got {batch_size}")
        if seed < 0 or num_workers < 0:
            raise ValueError(f"Loader: wanted seed and num_workers at least 0, got {seed} and {num_workers}")
        self.split = split
        self.normalization = Normalization.of(mean, std)
        self.batch_size = batch_size
        self._shuffle = shuffle
        self.augment = augment
        self._seed = seed
        self._num_workers = num_workers
        self._pin = pin

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def draw(self, epoch: int) -> Epoch:
        """Order and augmentation of one epoch, as in `epoch`."""
        samples = len(self.split)
        order = torch.arange(samples)
        if self._shuffle:
            order = torch.randperm(samples, generator=generator(self._seed, epoch, _ORDER))
        return Epoch(order, draw(samples, generator(self._seed, epoch, _AUGMENTATION)) if self.augment else None)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch.

        epoch: non-negative number that, with the seed, picks order and augmentation.
        """
        batches = _Batches(self.split, self.draw(epoch), self.batch_size, self.normalization)
        if self._num_workers == 0:
            for number in range(len(self)):
                yield _pinned(batches[number]) if self._pin else batches[number]
        else:
            unused = torch.Generator()  # without it the workers' seeds are drawn from the global one
            yield from DataLoader(
                batches, batch_size=None, num_workers=self._num_workers, generator=unused, pin_memory=self._pin
            )


def _pinned(batch: Batch) -> Batch:
    return Batch(*(tensor.pin_memory() for tensor in batch))


class _Batches(Dataset[Batch]):
    def __init__(self, split: Split, epoch: Epoch, batch_size: int, normalization: Normalization) -> None:
        self._split, self._augmentation, self._normalization = split, epoch.augmentation, normalization
        self._order = epoch.order.split(batch_size)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Batch:
        index = self._order[number]
        images = prepare(self._split.images, index, self._augmentation, self._normalization)
        return Batch(images, self._split.labels[index], index)
