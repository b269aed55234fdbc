"""Batches of normalised images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import advkernels as ak
from freefast.data.dataset import Split, check_normalization
from freefast.data.prepare import prepare
from freefast.data.seeding import derived_seed, generator

_ORDER, _AUGMENTATION = 0, 1


class Batch(NamedTuple):
    """n samples, on the CPU."""

    images: Tensor
    """(n, C, H, W) float32, model units: (pixels - mean) / std, channels last."""
    labels: Tensor
    """(n,) int64, class indices."""
    positions: Tensor
    """(n,) int64, places in the split."""


class Loader:
    """Every sample of the split, or of some rows of it, once an epoch, the last batch being what remains.

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
        rows: Tensor | None = None,
    ) -> None:
        """
        mean, std: per channel, pixel units.
        augment: random crop with a padding of 4 pixels and random horizontal flip.
        seed: non-negative.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        pin: give batches in page-locked memory, which a CUDA device copies by itself.
        rows: (n,) int64, the places in the split to take samples from; None for all.

        Raises: ValueError that says which argument is wrong.
        """
        check_normalization(mean, std, split.images.shape[1])
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size: wanted at least 1, got {batch_size}")
        if seed < 0 or num_workers < 0:
            raise ValueError(f"Loader: wanted seed and num_workers at least 0, got {seed} and {num_workers}")
        self.split = split
        self.mean, self.std = tuple(mean), tuple(std)
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._augment = augment
        self._seed = seed
        self._num_workers = num_workers
        self._pin = pin
        self._rows = torch.arange(len(split)) if rows is None else rows

    def __len__(self) -> int:
        return -(-len(self._rows) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """(n,) int64, places in the split, batch after batch of one epoch, as in `epoch`."""
        if self._shuffle:
            return self._rows[torch.randperm(len(self._rows), generator=generator(self._seed, epoch, _ORDER))]
        return self._rows

    def random_state(self, device: torch.device | str = "cpu") -> ak.PhiloxState | None:
        """What augments, its draw being the epoch, or None; of a seed unlike the run's, which attacks draw from."""
        return ak.PhiloxState(derived_seed(self._seed, 0, _AUGMENTATION), device) if self._augment else None

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch.

        epoch: in [0, 2**48); with the seed it picks order and augmentation.
        """
        batches = _Batches(self, epoch)
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
    def __init__(self, loader: Loader, epoch: int) -> None:
        self._split, self._mean, self._std = loader.split, loader.mean, loader.std
        self._order = loader.order(epoch).split(loader.batch_size)
        self._rng = loader.random_state()
        if self._rng is not None:
            self._rng.seek(epoch)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Batch:
        index = self._order[number]
        try:
            images = self._prepare(index)
        except ak.BackendUnavailable:  # asked for by name for the device; the host's have the same bits
            with ak.backend("auto"):
                images = self._prepare(index)
        return Batch(images, self._split.labels[index], index)

    def _prepare(self, index: Tensor) -> Tensor:
        return prepare(self._split.images, index, self._mean, self._std, self._rng)
