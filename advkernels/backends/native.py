"""The compiled operators: found, loaded and asked what they are."""

from pathlib import Path
from types import ModuleType

import torch

_PACKAGE = Path(__file__).parents[1]


def _missing_reason() -> str:
    note = _PACKAGE / "not_built.txt"
    return note.read_text().strip() if note.exists() else "the C++ extension was not built; run `pip install .`"


def _load() -> tuple[frozenset[str], str]:
    """Device types whose operators are loaded, and why the others are missing."""
    libraries = sorted(_PACKAGE.glob("_operators_cpu*.so"))
    if not libraries:
        return frozenset(), _missing_reason()
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        return frozenset(), f"{libraries[0].name} does not load: {error}"
    return frozenset({"cpu"}), "no native operators for this device in this version"


def bindings() -> ModuleType | None:
    """The pybind11 module of build facts and test doors, or None where it was not built for this Python."""
    try:
        from advkernels import _bindings
    except ImportError:
        return None
    return _bindings


DEVICES, REASON = _load()
