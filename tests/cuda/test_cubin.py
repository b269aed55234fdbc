"""The machine code of the CUDA operators: no memory for spilled registers, 16-byte accesses, no fused arithmetic."""

import collections
import re
from pathlib import Path

import cubin
import pytest

IMAGE_KERNELS = [(path, f"{path}, {reach}") for path in ("floats", "halves", "mixed") for reach in cubin.REACHES]
# Vector loads and stores of 16 bytes that each kernel's body needs: an access of each tensor.
VECTORS = {
    **{f"sign_step_kernel<{kernel}>": (3, 2) for _, kernel in IMAGE_KERNELS},
    **{f"uniform_init_kernel<{kernel}>": (1, 1 if path == "mixed" else 2) for path, kernel in IMAGE_KERNELS},
    **{f"uniform_init_tile_kernel<{kernel}>": (1, 1 if path == "mixed" else 2) for path, kernel in IMAGE_KERNELS},
    "l2_step_kernel<floats>": (6, 2),  # the gradient in three phases, delta in two
    "l2_step_kernel<mixed>": (6, 0),
    "l2_init_kernel<floats>": (1, 2),
    "l2_init_kernel<mixed>": (1, 0),
    **{f"batch_moments_kernel<{path}>": (2, 1) for path in ("floats", "halves")},
    **{f"normalize_relu_kernel<{path}>": (2, 2) for path in ("floats", "halves")},
    **{f"normalize_relu_sums_kernel<{path}>": (2, 0) for path in ("floats", "halves")},
    **{f"normalize_relu_backward_kernel<{path}>": (3, 1) for path in ("floats", "halves")},
    "sgd_step_kernel<64>": (3, 2),
    "sgd_step_kernel<560>": (3, 2),
}
ROWS = ("batch_moments", "normalize_relu", "normalize_relu_sums", "normalize_relu_backward")
SINGLES = {f"{name}_kernel<strided>" for name in ("sign_step", "uniform_init", "l2_step", "l2_init", *ROWS)}
SINGLES |= {"merge_moments_kernel", "merge_sums_kernel"}
SINGLES |= {"sgd_step_strided_kernel", "write_packet", "augment_kernel", "augment_strided_kernel"}
SUMMING = {
    f"{name}_kernel<{path}>" for name in ("batch_moments", "normalize_relu_sums") for path in ("floats", "halves")
}
DIVIDING = ("l2_", "augment_", "batch_moments_", "normalize_relu_", "merge_")


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
            assert kernel.registers <= most_registers(kernel), kernel


def most_registers(kernel: cubin.Kernel) -> int:
    """Four blocks of 256 threads a multiprocessor; two where a thread has many sums, and of rows since 10.0."""
    rows = kernel.name.startswith(ROWS) and int(kernel.architecture.removeprefix("sm_").rstrip("af")) >= 100
    return 128 if kernel.name in SUMMING or rows else 64


def test_vectors_of_16_bytes_and_no_fused_arithmetic(library: Path) -> None:
    for architecture in {kernel.architecture for kernel in cubin.kernels(library)}:
        for name, opcodes in cubin.instructions(library, architecture).items():
            counts = collections.Counter(opcodes)
            loads, stores = VECTORS.get(name, (0, 0))
            assert sum(counts[o] for o in counts if o.startswith("LDG") and ".128" in o) >= loads, name
            assert sum(counts[o] for o in counts if o.startswith("STG") and ".128" in o) >= stores, name
            # A division or root is a row of fused operations, exactly rounded, and a call for rare numbers.
            fused = {"FFMA", "DFMA", "RET"} if not name.startswith(DIVIDING) else set()
            assert not [o for o in counts if o.split(".")[0] in {"LDL", "STL"} | fused], name
            assert len(opcodes) > 10, name


def test_no_fused_arithmetic_was_asked_for(library: Path) -> None:
    """In the portable code, where division and root are one instruction each; ptxas leaves what is rounded so alone."""
    code = cubin.portable(library)
    if not code:
        pytest.skip("built without portable code")
    assert "l2_step_kernel" in code
    assert "augment_kernel" in code
    assert "fma." not in code
    assert {
        word for word in re.findall(r"(?:add|sub|mul|div|sqrt)[.\w]*\.f(?:32|64)", code) if ".rn" not in word
    } == set()
