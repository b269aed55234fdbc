"""Data sets of small images, and batches of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from freefast.data import cifar10, digits, fake, imagefolder
from freefast.data.dataset import ImageData, Split
from freefast.data.loader import Batch, Loader
from freefast.data.normalization import CIFAR10_MEAN, CIFAR10_STD, normalization
from freefast.errors import UserError

DatasetName = Literal["digits", "cifar10", "imagefolder", "fake"]
DATASETS: tuple[str, ...] = get_args(DatasetName)

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "DATASETS",
    "Batch",
    "DatasetName",
    "ImageData",
    "Loader",
    "Split",
    "load",
    "normalization",
]


def load(
    name: str,
    *,
    root: str | Path | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> ImageData:
    """Loads a data set by its name, one of DATASETS.

    root: folder of cifar10 ("data" if None) or imagefolder (required); unused by digits and fake.
    limit_train, limit_test: at most so many samples, balanced over the classes; None for all.
    image_size: pixels, one number or (H, W), that imagefolder resizes to and fake makes (32 if None).
    mean, std: per channel, pixel units; None for the data set's own.
    seed: non-negative; picks the samples under a limit, and the images of fake.

    Raises: UserError in one line: an unknown name, an argument out of range, or data missing or broken.
    """
    for argument, limit in (("limit_train", limit_train), ("limit_test", limit_test)):
        if limit is not None and limit < 1:
            raise UserError(f"{argument}: wanted at least 1, got {limit}")
    if seed < 0:
        raise UserError(f"seed: wanted at least 0, got {seed}")
    data = _load(name, root, _size(image_size), seed)
    return replace(
        data,
        mean=data.mean if mean is None else tuple(mean),
        std=data.std if std is None else tuple(std),
        train=data.train if limit_train is None else data.train.take(limit_train, seed),
        test=data.test if limit_test is None else data.test.take(limit_test, seed),
    )


def _load(name: str, root: str | Path | None, image_size: tuple[int, int] | None, seed: int) -> ImageData:
    if image_size and name in ("digits", "cifar10"):
        raise UserError(f"image_size: {name} has a size of its own; only imagefolder and fake take one")
    match name:
        case "digits":
            return digits.load()
        case "cifar10":
            return cifar10.load("data" if root is None else root)
        case "imagefolder":
            if root is None:
                raise UserError("--data-root: imagefolder wants the folder that holds train/ and test/ (root of load)")
            return imagefolder.load(root, image_size)
        case "fake":
            return fake.load(image_size or (32, 32), seed)
    raise UserError(f"dataset: wanted one of {', '.join(DATASETS)}, got {name}")


def _size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(size) < 1:
        raise UserError(f"image_size: wanted at least 1 pixel, got {image_size}")
    return size
