"""What the timed steps train on."""

import dataclasses

import torch

from freefast import data
from freefast.bench.config import EPOCH, BenchConfig
from freefast.data import CIFAR10_MEAN, CIFAR10_STD, ImageData, Split
from freefast.errors import UserError


def load(config: BenchConfig) -> tuple[ImageData, int]:
    """Images in whole batches, and how many an epoch has.

    Raises: UserError where there are fewer than one batch, or the data set is missing or broken.
    """
    if config.dataset is None:
        images = made_up(config.samples)
        epoch = EPOCH
    else:
        images = data.load(config.dataset, root=config.data_root)
        epoch = len(images.train)
    whole = min(config.samples, len(images.train)) // config.batch_size * config.batch_size
    if whole == 0:
        raise UserError(f"batch_size: wanted at most as many as there are images, got {config.batch_size}")
    return dataclasses.replace(images, train=images.train.take(whole, seed=0)), epoch


def made_up(samples: int) -> ImageData:
    """Random pixels and labels, of CIFAR-10's size and classes."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        return Split(images=images, labels=torch.randint(0, 10, (count,), generator=random))

    classes = tuple(map(str, range(10)))
    return ImageData(
        name="made up", classes=classes, mean=CIFAR10_MEAN, std=CIFAR10_STD, train=split(samples), test=split(10)
    )
