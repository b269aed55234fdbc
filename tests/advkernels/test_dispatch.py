"""The choice of the backend: explicit works or raises, auto takes the fastest, the environment sets the default."""

import os
import subprocess
import sys

import pytest
import torch

import advkernels as ak
from advkernels import dispatch, info
from advkernels.schemas import SCHEMAS

CPU = torch.device("cpu")


def step() -> None:
    x = torch.rand(2, 3, 4, 4)
    ak.sign_step(torch.zeros_like(x), x.clone(), x, 0.1, 0.2)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="wanted one of auto, reference, native, triton, got 'fast'"):
        ak.backend("fast")


def test_triton_on_cpu_says_why() -> None:
    with ak.backend("triton"), pytest.raises(ak.BackendUnavailable, match=r"'triton' on cpu: .*available: reference"):
        step()


def test_missing_native_raises_and_auto_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_chosen", {})
    monkeypatch.setattr(dispatch.native, "why_missing", lambda device_type: "no compiler that day")
    with ak.backend("native"), pytest.raises(ak.BackendUnavailable, match="no compiler that day; available: reference"):
        step()
    with ak.backend("auto"):
        assert dispatch.choose(CPU) == "reference"
        step()


def test_a_gpu_that_the_library_has_no_code_for_gets_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library is asked on a machine with GPUs, of which the second is too old for it."""
    reasons = {0: None, 1: "no kernel image is available"}
    monkeypatch.setattr(dispatch, "_chosen", {})
    monkeypatch.setattr(dispatch.native, "_REASONS", {"cuda": None})
    monkeypatch.setattr(dispatch.native, "_why_not_on", reasons.__getitem__)
    monkeypatch.setattr(dispatch, "_triton_import_error", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [dispatch.fastest(f"cuda:{index}") for index in range(2)] == ["native", "triton"]
    assert dispatch.fastest("cuda") == "triton"
    with ak.backend("native"), pytest.raises(ak.BackendUnavailable, match="'native' on cuda: no kernel image"):
        dispatch.choose(torch.device("cuda:1"))


def test_context_restores_and_nests() -> None:
    before = dispatch.choose(CPU)
    outer = ak.backend("reference")
    with outer, outer:
        assert dispatch.choose(CPU) == "reference"
        with ak.backend("auto"):
            assert dispatch.choose(CPU) == dispatch.fastest("cpu")
        assert dispatch.choose(CPU) == "reference"
    with pytest.raises(KeyError), ak.backend("reference"):
        raise KeyError
    assert dispatch.choose(CPU) == before


def test_native_is_built_here() -> None:
    """Without this test a build that lost its extension would pass all others by skipping them."""
    if os.environ.get("ADVKERNELS_BUILD_NATIVE") == "0":
        pytest.skip("ADVKERNELS_BUILD_NATIVE=0")
    assert dispatch.why_missing("native", "cpu") is None


def run_info(**environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "advkernels.info"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_info_names_every_backend_and_the_default() -> None:
    result = run_info(ADVKERNELS_BACKEND="reference")
    assert result.returncode == 0, result.stderr
    assert "ADVKERNELS_BACKEND: reference" in result.stdout
    for device in ("cpu", "cuda"):
        for name in ("reference", "native", "triton"):
            assert any(line.split()[:2] == [device, name] for line in result.stdout.splitlines())
    assert "missing: " in result.stdout  # triton on the CPU, at least


def test_bad_environment_is_named() -> None:
    result = run_info(ADVKERNELS_BACKEND="fastest")
    assert result.returncode != 0
    assert "ADVKERNELS_BACKEND: wanted one of auto, reference, native, triton, got 'fastest'" in result.stderr


def test_import_does_not_initialise_cuda_or_import_triton() -> None:
    code = "import sys, torch, advkernels; assert not torch.cuda.is_initialized(); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_describe_agrees_with_dispatch() -> None:
    for device in ("cpu", "cuda"):
        assert any(
            line.split() == [device, "auto", "uses", dispatch.fastest(device)] for line in info.describe().splitlines()
        )


def test_info_shows_every_operator() -> None:
    table = [line.split() for line in info.describe().splitlines()[-len(SCHEMAS) :]]
    assert [row[0] for row in table] == list(SCHEMAS)
    places = [(name, device) for device in ("cpu", "cuda") for name in ("reference", "native", "triton")]
    wanted = ["-" if dispatch.why_missing(*place) else "yes" for place in places]
    assert all(row[1:] == wanted for row in table)
