"""Batches of a split that lies on the device whole: gathered, augmented and normalised there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from freefast.data.dataset import Split
from freefast.data.loader import Loader
from freefast.data.prepare import prepare

_SHARE = 0.25
"""Of the free device memory that the training images may take."""


class DeviceBatches:
    """`Loader`'s batches, bit for bit, without a host that prepares or copies them.

    In an epoch's beginning its order is copied and the random state goes to its draw, both in place. A batch is read
    from a cursor that lives on the device, so that a captured graph reads the next one at every replay.

    loader: its images are copied to the device whole; it may not have processes, which would have nothing to do
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self._loader = loader
        self._images, self._labels = loader.split.images.to(device), loader.split.labels.to(device)
        self._rng = loader.random_state(device)
        self._cursor = torch.zeros((), dtype=torch.int64, device=device)
        self._offsets = torch.arange(loader.batch_size, device=device)
        self._order = loader.order(0).to(device, copy=True)

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `read` reads and writes, at addresses that stay."""
        fixed = (self._images, self._labels, self._cursor, self._offsets, self._order)
        return fixed if self._rng is None else (*fixed, self._rng.tensor)

    def epoch(self, epoch: int) -> Iterator[int]:
        """The size of each batch of an epoch, when it is to be `read`."""
        order = self._loader.order(epoch)
        self._order.copy_(order)
        if self._rng is not None:
            self._rng.seek(epoch)
        self._cursor.zero_()
        yield from map(len, order.split(self._loader.batch_size))

    def read(self, count: int) -> tuple[Tensor, Tensor]:
        """The next batch, by the device's work alone.

        Returns: images (count, C, H, W) float32, model units, channels last; labels (count,) int64
        """
        index = self._order.index_select(0, self._offsets[:count] + self._cursor)
        self._cursor.add_(count)
        images = prepare(self._images, index, self._loader.mean, self._loader.std, self._rng)
        return images, self._labels.index_select(0, index)


def fits(split: Split, device: torch.device) -> bool:
    """Whether the images are at most a quarter of the device's free memory; the host's own always fit."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return split.images.nbytes <= _SHARE * free
