"""The compiled operators: found, loaded and asked what they are."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

_PACKAGE = Path(__file__).parents[1]


def _load(device_type: str, note: str) -> str | None:
    """Load the operators of a device type without touching the device; the reason where they are missing, or None."""
    if device_type == "cuda" and torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    libraries = sorted(_PACKAGE.glob(f"_operators_{device_type}*.so"))
    if not libraries:
        file = _PACKAGE / note
        if file.exists():
            return file.read_text().strip()
        return f"the extension was not built; run `pip install .` (no _operators_{device_type}*.so in {_PACKAGE})"
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        return f"{libraries[0].name} does not load: {error}"
    return None


def why_missing(device_type: str) -> str | None:
    """None where the compiled operators run on such a device, else the reason why not."""
    return _REASONS.get(device_type, "there are no native operators for this device")


def bindings() -> ModuleType | None:
    """The pybind11 module of build facts and test doors, or None where it was not built for this Python."""
    try:
        return import_module("advkernels._bindings")
    except ImportError:
        return None


_REASONS = {"cpu": _load("cpu", "not_built.txt"), "cuda": _load("cuda", "not_built_cuda.txt")}
