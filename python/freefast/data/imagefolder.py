"""Any tree of images in class folders, decoded once."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from freefast.data import cache
from freefast.data.dataset import ImageData, Split
from freefast.data.decode import decode, is_grey, open_image
from freefast.data.normalization import normalization
from freefast.data.tree import File, Tree, scan
from freefast.errors import UserError


def load(root: str | Path, image_size: tuple[int, int] | None) -> ImageData:
    """Images of root/train/<class>/ and root/test/<class>/, in any format that Pillow reads.

    The first load decodes them into a uint8 array in root/.freefast-cache, or in the user's cache folder
    where the tree is read-only; later ones map that into memory, until a file is added, removed or changed.
    Where all images are grey there is one channel, mean 0 and std 1; else three, CIFAR-10's mean and std.

    root: folder that holds train/ and test/.
    image_size: (H, W) in pixels that all images are resized to, or None: they all have one size already.

    Raises: UserError that names the path.
    """
    root = Path(root).expanduser().absolute()
    try:
        tree = scan(root)
        images = _images(root, tree, image_size)
    except OSError as error:
        raise UserError(f"{root}: {error}") from error
    train, test = images[: len(tree.train)], images[len(tree.train) :]
    mean, std = normalization("imagefolder", images.shape[1])
    return ImageData(
        name="imagefolder",
        classes=tree.classes,
        mean=mean,
        std=std,
        train=_split(train, tree.train),
        test=_split(test, tree.test),
    )


def _images(root: Path, tree: Tree, image_size: tuple[int, int] | None) -> np.ndarray:
    paths = [file.path for file in tree.train + tree.test]
    kind = f"{image_size[0]}x{image_size[1]}" if image_size else "original"
    name = f"{kind}-{tree.fingerprint(root)}"
    images = cache.find(root, name, len(paths))
    if images is not None:
        return images

    channels = 1 if all(map(is_grey, paths)) else 3  # stops at the first colour image
    size = image_size or _size(paths[0])

    def fill(file: BinaryIO) -> None:
        decode(
            paths,
            channels=channels,
            size=size,
            resize=image_size is not None,
            write=lambda images: file.write(images.tobytes()),
        )

    return cache.write(root, name, (len(paths), channels, *size), fill)


def _size(path: str) -> tuple[int, int]:
    with open_image(path) as image:
        return image.height, image.width


def _split(images: np.ndarray, files: list[File]) -> Split:
    return Split(images=torch.from_numpy(images), labels=torch.tensor([file.label for file in files]))
