"""The case table of the Triton kernels in Triton's interpreter, on the CPU, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.long
def test_cases_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    cases = [str(Path(__file__).with_name(name)) for name in ("test_cases.py", "test_coordinates.py", "test_normal.py")]
    run = subprocess.run([*command, *cases], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "no CUDA device" not in run.stdout
