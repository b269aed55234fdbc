"""Batches that the host prepares, copied into tensors whose address stays."""

from collections.abc import Iterator

import torch
from torch import Tensor

from freefast.data.loader import Loader


class StagedBatches:
    """`Loader`'s batches, each copied into the same two tensors on the device without waiting for the last step.

    For splits that do not fit the device (`fits`), and for batches that processes prepare.

    loader: with `pin` where the device is CUDA, or copies wait
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self._loader = loader
        shape = (loader.batch_size, *loader.split.images.shape[1:])
        images = torch.zeros(shape, device=device)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.zeros(loader.batch_size, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `read` reads, at addresses that stay."""
        return self._images, self._labels

    def epoch(self, epoch: int) -> Iterator[int]:
        """The size of each batch of an epoch, when it is to be `read`."""
        for batch in self._loader.epoch(epoch):
            count = len(batch.labels)
            self._images[:count].copy_(batch.images, non_blocking=True)
            self._labels[:count].copy_(batch.labels, non_blocking=True)
            yield count

    def read(self, count: int) -> tuple[Tensor, Tensor]:
        """The batch that was copied last.

        Returns: images (count, C, H, W) float32, model units, channels last; labels (count,) int64
        """
        return self._images[:count], self._labels[:count]
