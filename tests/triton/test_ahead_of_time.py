"""Every Triton kernel compiled without a GPU, for three architectures; what the PTX holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

pytestmark = pytest.mark.long

CAPABILITIES = (80, 90, 100)
KERNELS = (
    *("sign_step", "uniform_init", "l2_step", "l2_init", "augment", "sgd_step"),
    *("batch_moments", "batch_moments_merge"),
    *("normalize_relu", "normalize_relu_sums", "normalize_relu_sums_merge", "normalize_relu_backward"),
)
FLOAT64 = ("l2", "batch_moments", "normalize_relu_sums")


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict]:
    """Facts about every kernel variant, from a process that may not have TRITON_INTERPRET set."""
    script = Path(__file__).with_name("compile_kernels.py")
    run = subprocess.run([sys.executable, str(script), *map(str, CAPABILITIES)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def test_every_kernel_compiles_to_a_cubin(compiled: dict[str, dict]) -> None:
    for capability in CAPABILITIES:
        for kernel in KERNELS:
            names = [name for name in compiled if name.startswith(f"{kernel} ") and name.endswith(f"sm_{capability}")]
            assert names, (kernel, capability)
            assert all(compiled[name]["cubin_bytes"] > 1000 for name in names)


def test_sixteen_byte_accesses_where_the_layout_allows(compiled: dict[str, dict]) -> None:
    dense = ("grouped", "augment channels_last", "augment contiguous")
    grouped = {
        name: facts
        for name, facts in compiled.items()
        if any(word in name for word in dense) and "merge" not in name  # a kernel that merges stores a few numbers
    }
    assert len(grouped) >= 12
    for name, facts in grouped.items():
        assert facts["wide_loads"] >= facts["inputs"], name
        assert facts["wide_stores"] >= facts["outputs"], name
        # The last chunk of an SGD parameter is stored element by element.
        assert facts["narrow_stores"] == 0 or name.startswith("sgd_step"), name


def test_no_local_memory_and_every_operation_rounded(compiled: dict[str, dict]) -> None:
    assert compiled["control"]["fused"] > 0
    assert compiled["control 64"]["fused"] + compiled["control 64"]["fusible"] > 0
    for name, facts in compiled.items():
        if name.startswith("control"):
            continue
        assert not facts["local_memory"], name
        assert facts["fused"] == 0, name
        assert facts["approximate"] == 0, name
        if name.startswith(FLOAT64):
            assert facts["fusible"] == 0, name
        else:
            assert facts["float64"] == 0, name
        assert not facts["flushes_subnormals"], name
