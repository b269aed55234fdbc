"""The machine code of the CUDA operators: no memory for spilled registers, 16-byte accesses, no fused arithmetic."""

import collections
from pathlib import Path

import cubin
import pytest

IMAGE_PATHS = ("floats", "halves", "mixed")
# Vector loads and stores of 16 bytes that each kernel's body needs: an access of each tensor.
VECTORS = {
    **{f"sign_step_kernel<{path}>": (3, 2) for path in IMAGE_PATHS},
    **{f"uniform_init_kernel<{path}>": (1, 1 if path == "mixed" else 2) for path in IMAGE_PATHS},
    **{f"uniform_init_tile_kernel<{path}>": (1, 1 if path == "mixed" else 2) for path in IMAGE_PATHS},
    "sgd_step_kernel<64>": (3, 2),
    "sgd_step_kernel<560>": (3, 2),
}
SINGLES = {"sign_step_kernel<strided>", "uniform_init_kernel<strided>", "sgd_step_strided_kernel", "write_packet"}


@pytest.fixture(scope="module")
def library() -> Path:
    file = cubin.library()
    if file is None:
        pytest.skip("the CUDA operators are not built")
    if cubin.cuobjdump() is None:
        pytest.skip("no cuobjdump on the PATH or in a Triton package")
    return file


def test_every_kernel_keeps_its_registers(library: Path) -> None:
    found = collections.defaultdict(list)
    for kernel in cubin.kernels(library):
        found[kernel.architecture].append(kernel)
    assert found
    for kernels in found.values():
        assert {kernel.name for kernel in kernels} == VECTORS.keys() | SINGLES
        for kernel in kernels:
            assert kernel.stack_bytes == kernel.local_bytes == 0, kernel
            assert kernel.registers <= 64, kernel  # four blocks of 256 threads a multiprocessor


def test_vectors_of_16_bytes_and_no_fused_arithmetic(library: Path) -> None:
    for architecture in {kernel.architecture for kernel in cubin.kernels(library)}:
        for name, opcodes in cubin.instructions(library, architecture).items():
            counts = collections.Counter(opcodes)
            loads, stores = VECTORS.get(name, (0, 0))
            assert sum(counts[o] for o in counts if o.startswith("LDG") and ".128" in o) >= loads, name
            assert sum(counts[o] for o in counts if o.startswith("STG") and ".128" in o) >= stores, name
            assert not [o for o in counts if o.split(".")[0] in ("FFMA", "DFMA", "LDL", "STL", "RET")], name
            assert len(opcodes) > 10, name
