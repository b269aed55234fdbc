"""Image files to uint8 arrays, in threads, with a progress bar."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from freefast.errors import UserError
from freefast.progress import bars, track

CHUNK = 256
THREADS = min(8, os.cpu_count() or 1)  # the interpreter lock: more decode small images no faster
GREY = ("1", "L", "LA")
DEEP = ("I", "F")


def open_image(path: str) -> Image.Image:
    """Opens a file and reads its header.

    Raises: UserError that names the file, where Pillow cannot read it or it is not of 8 bits a channel.
    """
    try:
        image = Image.open(path)
    except Exception as error:  # Pillow's plugins raise what they like on a broken file
        raise UserError(f"{path}: not a readable image ({_one_line(error)})") from error
    if image.mode.startswith(DEEP):
        raise UserError(f"{path}: wanted 8 bits a channel, got pixels of mode {image.mode}")
    return image


def is_grey(path: str) -> bool:
    """Whether the file's header announces grey levels only."""
    with open_image(path) as image:
        return image.mode in GREY


def decode(
    paths: list[str],
    *,
    channels: int,
    size: tuple[int, int],
    resize: bool,
    write: Callable[[np.ndarray], object],
) -> None:
    """Decodes files and hands them to `write` in order, (n, C, H, W) uint8 at a time.

    channels: 1 or 3; grey images are repeated over 3.
    size: (H, W) in pixels, of every image, or to resize every other one to.

    Raises: UserError that names the file, where one is broken or, without resize, of another size.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    read = partial(_read, mode="L" if channels == 1 else "RGB", size=size, resize=resize)
    with bars() as bar, track(bar, "decode", len(paths)) as advance, ThreadPoolExecutor(THREADS) as pool:
        try:
            for images in pool.map(lambda chunk: np.stack([read(path) for path in chunk]), chunks):
                write(images)
                advance(len(images))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(path: str, *, mode: str, size: tuple[int, int], resize: bool) -> np.ndarray:
    height, width = size
    with open_image(path) as image:
        if image.size != (width, height) and not resize:
            raise UserError(
                f"{path}: wanted {width}x{height} pixels as in the first image, "
                f"got {image.width}x{image.height}; give an image size to resize all of them"
            )
        try:
            pixels = image.convert(mode)
        except Exception as error:  # as in open_image
            raise UserError(f"{path}: not a readable image ({_one_line(error)})") from error
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(pixels)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
