"""`python -m advkernels.info`: which backends are there, and why one is not."""

import platform

import torch

import advkernels
from advkernels import dispatch, env
from advkernels.backends import native
from advkernels.schemas import SCHEMAS


def describe() -> str:
    """Versions, build facts and the state of every operator in every backend on every device type, as plain text."""
    lines = [
        f"advkernels {advkernels.__version__}, Python {platform.python_version()}, {platform.machine()}",
        f"run: torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}, CUDA devices: {_cuda()}",
        *_build(),
        f"ADVKERNELS_BACKEND: {env.backend()}",
    ]
    for device, present in (("cpu", True), ("cuda", torch.cuda.is_available())):
        available = "available" if present else "available, but no CUDA device"
        for name in env.BACKENDS[1:]:
            reason = dispatch.why_missing(name, device)
            state = available if reason is None else f"missing: {reason}"
            lines.append(f"{device:5} {name:10} {state}")
        lines.append(f"{device:5} {'auto':10} uses {dispatch.fastest(device)}")
    return "\n".join([*lines, "", *_operators()])


def _operators() -> list[str]:
    """A table of which operator has a kernel of its own where, as PyTorch's dispatcher has it registered."""
    rows = [("operator", *(f"{device} {name}" for device in ("cpu", "cuda") for name in env.BACKENDS[1:]))]
    for operator in SCHEMAS:
        has = [_has_kernel(operator, device, name) for device in ("cpu", "cuda") for name in env.BACKENDS[1:]]
        rows.append((operator, *("yes" if kernel else "-" for kernel in has)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _has_kernel(operator: str, device: str, backend: str) -> bool:
    if dispatch.why_missing(backend, device) is not None:
        return False
    key = "CompositeExplicitAutograd" if backend == "reference" else device.upper()
    namespace = "advkernels_triton" if backend == "triton" else "advkernels"
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{operator}", key)


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none"
    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return ", ".join(f"{device.name} (sm_{device.major}{device.minor})" for device in devices)


def _build() -> list[str]:
    module = native.bindings()
    if module is None:
        return ["build: no compiled bindings for this Python"]
    facts = ", ".join(f"{key} {value}" for key, value in module.build_facts().items())
    return [f"build: {facts}", f"vector instructions used here: {module.cpu_capability()}"]


if __name__ == "__main__":
    print(describe())
