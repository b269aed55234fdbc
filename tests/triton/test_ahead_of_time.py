"""Every Triton kernel compiled without a GPU, for three architectures; what the PTX holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

CAPABILITIES = (80, 90, 100)


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict]:
    """Facts about every kernel variant, from a process that may not have TRITON_INTERPRET set."""
    script = Path(__file__).with_name("compile_kernels.py")
    run = subprocess.run([sys.executable, str(script), *map(str, CAPABILITIES)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def test_every_kernel_compiles_to_a_cubin(compiled: dict[str, dict]) -> None:
    assert compiled
    assert all(facts["cubin_bytes"] > 1000 for facts in compiled.values())


def test_sixteen_byte_accesses_where_the_layout_allows(compiled: dict[str, dict]) -> None:
    grouped = {name: facts for name, facts in compiled.items() if "grouped" in name}
    assert len(grouped) >= len(CAPABILITIES) * 6
    for name, facts in grouped.items():
        assert facts["wide_loads"] >= facts["inputs"], name
        assert facts["wide_stores"] >= facts["outputs"], name
        assert facts["narrow_stores"] == 0, name


def test_no_local_memory_and_no_fused_products(compiled: dict[str, dict]) -> None:
    for name, facts in compiled.items():
        assert not facts["local_memory"], name
        assert facts["fused"] == 0, name
        assert not facts["flushes_subnormals"], name
