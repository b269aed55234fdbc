"""A folder tree of images: train/<class>/ and test/<class>/."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from freefast.errors import UserError


class File(NamedTuple):
    """An image file as the file system knows it."""

    path: str
    label: int
    size: int
    mtime_ns: int


class Tree(NamedTuple):
    """Class names, and the image files sorted by path."""

    classes: tuple[str, ...]
    train: list[File]
    test: list[File]

    def fingerprint(self, root: Path) -> str:
        """Changes with any file's path below root, size or modification time."""
        start = len(str(root))
        lines = (f"{file.path[start:]}\0{file.size}\0{file.mtime_ns}\n" for file in self.train + self.test)
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()[:16]


def scan(root: Path) -> Tree:
    """Lists the images below root/train and root/test; names that begin with a dot are passed over.

    Raises: UserError that names the path, for a missing folder, an empty class or differing classes.
    """
    classes = _classes(root / "train")
    test_classes = _classes(root / "test")
    if classes != test_classes:
        only = {"train": set(classes) - set(test_classes), "test": set(test_classes) - set(classes)}
        lists = [f"only in {split}: {', '.join(sorted(names))}" for split, names in only.items() if names]
        raise UserError(f"{root}: train and test hold different class folders ({'; '.join(lists)})")
    suffixes = _suffixes()
    train, test = (
        [file for label, name in enumerate(classes) for file in _images(root / split / name, label, suffixes)]
        for split in ("train", "test")
    )
    return Tree(classes, train, test)


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; wanted train/ and test/ with a folder for every class")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no class folders; wanted a folder of images for every class")
    return tuple(names)


def _images(folder: Path, label: int, suffixes: set[str]) -> list[File]:
    entries = list(_walk(folder))
    images = [entry for entry in entries if os.path.splitext(entry.name)[1].lower() in suffixes]
    if not images:
        ignored = f" ({len(entries)} files of no known image suffix)" if entries else ""
        raise UserError(f"{folder}: no images{ignored}")
    stats = ((entry.path, entry.stat()) for entry in images)
    return sorted(File(path, label, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def _walk(folder: str | Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                yield entry


def _suffixes() -> set[str]:
    extensions = Image.registered_extensions()
    return {suffix for suffix, name in extensions.items() if name in Image.OPEN}
