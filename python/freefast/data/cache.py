"""Arrays of decoded images on disk, memory-mapped when read."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from freefast.errors import UserError


def find(root: Path, name: str, count: int) -> np.ndarray | None:
    """The cached images of the tree at root, (count, C, H, W) uint8, or None, mapped copy-on-write."""
    for folder in folders(root):
        try:
            images = _open(folder / f"{name}.npy")
        except (OSError, ValueError, EOFError):  # missing, not ours to read, or damaged: decode again
            continue
        if images.dtype == np.uint8 and images.ndim == 4 and len(images) == count:
            return images
    return None


def write(root: Path, name: str, shape: tuple[int, ...], fill: Callable[[BinaryIO], None]) -> np.ndarray:
    """Writes an array as a whole or, where `fill` is interrupted, not at all, and maps it as `find` does.

    Older arrays of its kind are removed.

    name: "<kind>-<fingerprint>", no dash in either.
    shape: of the array whose uint8 bytes `fill` writes, in order.
    """
    folder = _writable(root)
    target = folder / f"{name}.npy"
    partial = folder / f"{name}.{uuid.uuid4().hex}.tmp"
    try:
        with partial.open("xb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    for old in folder.glob(f"{name.split('-')[0]}-*.npy"):
        if old != target:
            old.unlink(missing_ok=True)
    return _open(target)


def folders(root: Path) -> tuple[Path, Path]:
    """Where the caches of the tree at root may lie: in it, or in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tree = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return root / ".freefast-cache", user / "freefast" / tree


def _open(path: Path) -> np.ndarray:
    images: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return images


def _writable(root: Path) -> Path:
    for folder in folders(root):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    places = " nor to ".join(map(str, folders(root)))
    raise UserError(f"no place for decoded images: cannot write to {places}")
