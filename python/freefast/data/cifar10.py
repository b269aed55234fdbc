"""CIFAR-10, downloaded once by torchvision and verified by its checksums."""

from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from freefast.data.dataset import ImageData, Split
from freefast.data.normalization import normalization
from freefast.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def load(root: str | Path) -> ImageData:
    """50,000 training and 10,000 test images of 32x32 pixels in 10 classes.

    root: folder that holds, or will hold, the archive and what is unpacked from it.

    Raises: UserError where the archive is neither there nor to be had.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    # imported here: it takes seconds that other data sets need not pay
    from torchvision.datasets import CIFAR10

    try:
        train, test = CIFAR10(root, train=True, download=True), CIFAR10(root, train=False)
    except (OSError, RuntimeError, HTTPException) as error:
        raise UserError(
            f"cifar10: cannot download ({error}); put {CIFAR10.filename} (from {CIFAR10.url}, "
            f"md5 {CIFAR10.tgz_md5}) into {Path(root).expanduser().absolute()}"
        ) from error
    mean, std = normalization("cifar10", 3)
    return ImageData(
        name="cifar10",
        classes=tuple(train.classes),
        mean=mean,
        std=std,
        train=_split(train),
        test=_split(test),
    )


def _split(dataset: "CIFAR10") -> Split:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Split(images=images, labels=torch.tensor(dataset.targets))
