"""`python -m advkernels.info`: which backends are there, and why one is not."""

import platform

import torch

import advkernels
from advkernels import dispatch, env
from advkernels.backends import native


def describe() -> str:
    """Versions, build facts and the state of every backend on every device type, as plain text."""
    lines = [
        f"advkernels {advkernels.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}",
        f"CUDA devices: {_cuda()}",
        f"ADVKERNELS_BACKEND: {env.backend()}",
        *_build(),
    ]
    for device, present in (("cpu", True), ("cuda", torch.cuda.is_available())):
        available = "available" if present else "available, but no CUDA device"
        for name in env.BACKENDS[1:]:
            reason = dispatch.why_missing(name, device)
            state = available if reason is None else f"missing: {reason}"
            lines.append(f"{device:5} {name:10} {state}")
        lines.append(f"{device:5} {'auto':10} uses {dispatch.fastest(device)}")
    return "\n".join(lines)


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _build() -> list[str]:
    module = native.bindings()
    if module is None:
        return ["build: no compiled bindings for this Python"]
    facts = ", ".join(f"{key} {value}" for key, value in module.build_facts().items())
    return [f"build: {facts}", f"vector instructions used here: {module.cpu_capability()}"]


if __name__ == "__main__":
    print(describe())
