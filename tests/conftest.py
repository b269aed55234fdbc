"""Every test that names `device` or `backend` runs on each device of the machine, on each backend that runs there."""

import os
from collections.abc import Iterator

import pytest
import torch

import advkernels as ak
from advkernels import dispatch
from advkernels.backends import native

CPU = ["reference", "native"]
CUDA = ["reference", "native", "triton"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--built-under", help="the torch that must have built the operators, and not be the one that runs")


def pytest_sessionstart(session: pytest.Session) -> None:
    # pytest-xdist's processes would take each other's cores.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    wanted = session.config.getoption("--built-under")
    if wanted is None:
        return
    bindings = native.bindings()
    built = bindings.build_facts()["torch"] if bindings else "none"
    reasons = [reason for name, reason in native._REASONS.items() if name in ("cpu", "cuda") and reason]
    if not built.startswith(wanted) or torch.__version__.startswith(wanted) or reasons:
        pytest.exit(
            f"wanted operators built under {wanted}, not run by it; built under {built}, {reasons}", returncode=1
        )
    print(f"operators of {native.__file__}, built under torch {built}, run by torch {torch.__version__}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        pairs = [("cpu", name) for name in CPU]
        pairs += [pytest.param("cuda", name, marks=pytest.mark.gpu) for name in CUDA]
        metafunc.parametrize(("device", "backend"), pairs, indirect=["backend"])
    elif "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.fixture
def backend(request: pytest.FixtureRequest, device: str) -> Iterator[str]:
    """The backend of the whole test."""
    reason = dispatch.why_missing(request.param, device)
    if reason is not None:
        pytest.skip(f"{request.param} on {device}: {reason}")
    with ak.backend(request.param):
        yield request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For work too small to share out: on a busy machine its threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def float32_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by TF32, whose products have 11 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def deterministic_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of a comparison choose the same convolution algorithms."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
