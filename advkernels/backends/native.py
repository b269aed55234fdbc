"""The compiled operators: found, loaded and asked what they are."""

import ctypes
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from advkernels import env

_PACKAGE = Path(__file__).parents[1]


def _load(device_type: str, note: str) -> str | None:
    """Load the operators of a device type without touching the device; the reason where they are missing, or None."""
    if device_type == "cuda" and torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    library = _library(device_type)
    if library is None:
        file = _PACKAGE / note
        if file.exists():
            return file.read_text().strip()
        return f"the extension was not built; run `pip install .` (no _operators_{device_type}*.so in {_PACKAGE})"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"{library.name} does not load: {error}"
    return None


def _library(device_type: str) -> Path | None:
    return min(_PACKAGE.glob(f"_operators_{device_type}*.so"), default=None)


def why_missing(device: torch.device | str) -> str | None:
    """None where the compiled operators run on such a device, else the reason why not."""
    device = torch.device(device)
    reason = _REASONS.get(device.type, "there are no native operators for this device")
    if reason is not None or device.type != "cuda" or not torch.cuda.is_available():
        return reason
    return _why_not_on(torch.cuda.current_device() if device.index is None else device.index)


def _why_not_on(index: int) -> str | None:
    """CUDA's reason why the library does not run on this GPU: no code for it, a driver older than its runtime."""
    ask = ctypes.CDLL(str(_library("cuda"))).advkernels_why_not_on
    ask.restype = ctypes.c_char_p
    with torch.cuda.device(index):
        answer: bytes | None = ask(index)
    return None if answer is None else f"the CUDA operators do not run on this GPU: {answer.decode()}"


# What torch.compiler.assume_constant_result does, which would load all of torch._dynamo.
_why_not_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


def bindings() -> ModuleType | None:
    """The pybind11 module of build facts and test doors, or None where it was not built for this Python."""
    try:
        return import_module("advkernels._bindings")
    except ImportError:
        return None


_REASONS = {"cpu": _load("cpu", "not_built.txt"), "cuda": _load("cuda", "not_built_cuda.txt")}

if _REASONS["cpu"] is not None and env.backend() == "auto" and not _REASONS["cpu"].startswith("ADVKERNELS_BUILD"):
    warnings.warn(f"advkernels: plain PyTorch takes the place of the C++ operators: {_REASONS['cpu']}", stacklevel=2)
