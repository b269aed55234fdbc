"""The library of the CUDA operators: found, loaded without touching a device, or missing with a reason."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from advkernels import dispatch
from advkernels.backends import native


def test_loads_without_initialising_cuda() -> None:
    if (reason := native.why_missing("cuda")) is not None:
        pytest.skip(reason)
    code = "import advkernels, torch; assert not torch.cuda.is_initialized(); print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "_operators_cuda" in maps
    assert "nvidia-uvm" not in maps


def test_a_torch_without_cuda_never_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert native._load("cuda", "not_built_cuda.txt") == f"torch {torch.__version__} is built without CUDA"


def test_it_says_why_it_does_not_run_on_a_device() -> None:
    """CUDA is asked for a kernel's attributes: here, mostly, for want of a device."""
    if (reason := native.why_missing("cuda")) is not None:
        pytest.skip(reason)
    ask = ctypes.CDLL(str(native._library("cuda"))).advkernels_why_not_on
    ask.restype = ctypes.c_char_p
    assert (ask(0) is None) == torch.cuda.is_available()
    assert ask(10_000)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the extension was not built; run `pip install .`"),
        ({"not_built_cuda.txt": "no nvcc was found at install time\n"}, "no nvcc was found at install time"),
        ({"_operators_cuda.abi3.so": "not a library"}, "_operators_cuda.abi3.so does not load: "),
    ],
)
def test_missing_library_gives_its_reason(
    content: dict[str, str] | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    for name, text in (content or {}).items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(native, "_PACKAGE", tmp_path)
    found = native._load("cuda", "not_built_cuda.txt")
    assert found is not None
    assert found.startswith(reason)
    monkeypatch.setitem(native._REASONS, "cuda", found)
    assert dispatch.why_missing("native", "cuda") == found


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ADVKERNELS_BUILD_CUDA": "yes"}, "ADVKERNELS_BUILD_CUDA: wanted one of auto, 0, 1, got 'yes'"),
        ({"ADVKERNELS_BUILD_CUDA": "1", "CUDA_HOME": "/nowhere"}, "ADVKERNELS_BUILD_CUDA=1, but no nvcc was found"),
        (
            {"ADVKERNELS_BUILD_NATIVE": "0", "ADVKERNELS_BUILD_CUDA": "1"},
            "ADVKERNELS_BUILD_CUDA=1 needs the C++ operators too",
        ),
    ],
)
def test_build_switch(variables: dict[str, str], message: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "setup.py"), "--version"]
    result = subprocess.run(command, env=os.environ | variables, cwd=root, capture_output=True, text=True)
    assert result.returncode != 0
    assert message in result.stderr
