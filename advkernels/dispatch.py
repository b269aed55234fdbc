"""(operator, device, requested backend) -> the function to call."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from advkernels import env
from advkernels.backends import native
from advkernels.schemas import DEFAULTS, SCHEMAS

_requested = env.backend()
_chosen: dict[tuple[str, torch.device], str] = {}  # by the requested backend


class BackendUnavailable(RuntimeError):  # noqa: N818
    """The backend that was asked for by name cannot run here."""


class backend:  # noqa: N801
    """Context manager: operations inside run on the named backend, or raise `BackendUnavailable`.

    name: "auto" (the fastest there is for the tensor's device), "reference", "native" or "triton"

    Raises: ValueError where the name is unknown. The choice holds for the whole process, all threads.
    """

    def __init__(self, name: str) -> None:
        if name not in env.BACKENDS:
            raise ValueError(f"backend: name: wanted one of {', '.join(env.BACKENDS)}, got {name!r}")
        self.name = name
        self._previous: list[str] = []

    def __enter__(self) -> "backend":
        self._previous.append(_set(self.name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(self._previous.pop())


def _set(name: str) -> str:
    global _requested
    previous, _requested = _requested, name
    return previous


def why_missing(name: str, device: torch.device | str) -> str | None:
    """None where the backend runs on such a device, else the reason why not."""
    device = torch.device(device)
    if name == "reference":
        return None
    if name == "native":
        return native.why_missing(device)
    if device.type == "cuda":
        if torch.version.hip is not None:
            return "the Triton kernels are written for NVIDIA GPUs"
        return _triton_import_error() if torch.cuda.is_available() else "no CUDA device"
    if device.type == "cpu" and env.interprets_triton():
        return _triton_import_error()
    return "Triton kernels run on CUDA devices"


def _triton_import_error() -> str | None:
    try:
        import advkernels.backends.triton  # noqa: F401
    except ImportError as error:
        return f"triton does not import: {error}"
    return None


def fastest(device: torch.device | str) -> str:
    """The backend that "auto" means on such a device; the interpreter is never meant."""
    device = torch.device(device)
    if native.why_missing(device) is None:
        return "native"
    return "triton" if device.type == "cuda" and why_missing("triton", device) is None else "reference"


def choose(device: torch.device) -> str:
    """The backend that runs on a device: the requested one, or the fastest there is for "auto"."""
    requested = _requested  # another thread may change it meanwhile
    name = _chosen.get((requested, device))
    if name is None:
        name = _chosen[requested, device] = _choose(requested, device)
    return name


def _choose(requested: str, device: torch.device) -> str:
    if requested == "auto":
        return fastest(device)
    reason = why_missing(requested, device)
    if reason is not None:
        available = [name for name in env.BACKENDS[1:] if why_missing(name, device) is None]
        raise BackendUnavailable(f"backend {requested!r} on {device.type}: {reason}; available: {', '.join(available)}")
    return requested


def pick(backend: str, operator: str, overload: str = "default") -> Callable[..., None]:
    """The function behind an operator in a backend."""
    if backend == "triton":
        return _overload(torch.ops.advkernels_triton, operator, overload)
    return _TABLE[backend, operator, overload]


def _overload(namespace: Any, operator: str, overload: str) -> Callable[..., None]:
    return getattr(getattr(namespace, operator), overload)


_NAMES = [(name.partition(".")[0], name.partition(".")[2] or "default") for name in SCHEMAS]
_TABLE = {
    **{("reference", *name): DEFAULTS[name[0]] for name in _NAMES},
    **{("native", *name): _overload(torch.ops.advkernels, *name) for name in _NAMES},
}
