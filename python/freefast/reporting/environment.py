"""Where a result was measured: device, versions, commit and command line."""

import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import advkernels


def describe(device: torch.device | str | None = None) -> dict[str, Any]:
    """What one needs to judge or repeat a measurement, ready for JSON.

    device: the device measured on; None is the first GPU where there is one, else the CPU.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": _command_line(),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "tf32": _convolves_in_tf32(place),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "advkernels": advkernels.__version__,
        "cuda": torch.version.cuda,
        "commit": _commit(),
    }


def _convolves_in_tf32(device: torch.device) -> bool:
    """Whether cuDNN rounds the inputs of float32 convolutions to TF32, as PyTorch lets it unless told otherwise."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return str(torch.backends.cudnn.conv.fp32_precision) == "tf32"  # type: ignore[attr-defined]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _command_line() -> str:
    program = Path(sys.argv[0])
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *sys.argv[1:]])


def _commit() -> str | None:
    """The checkout's commit, ending in -dirty where tracked files differ from it; None outside a checkout."""
    for folder in (Path(__file__).parent, Path.cwd()):
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top and (Path(top) / "python" / "freefast" / "reporting").is_dir():
            return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
