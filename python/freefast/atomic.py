"""Files that a reader finds old or new, never half written."""

import os
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file in the place of `path` in one step.

    write: called with the path to write to, beside it; what an interrupt leaves there the next call writes anew
    """
    part = path.with_name(f".{path.name}.part")
    write(part)
    os.replace(part, path)


def replace_text(path: Path, text: str) -> None:
    """The same with UTF-8 text."""
    replace(path, lambda part: part.write_text(text, encoding="utf-8"))
