"""The CUDA kernels of BatchNorm and ReLU, run on the host over whole grids: results, and every element touched once."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rows import DTYPES, EPS, MOMENTUM, SHAPES, Images, check_moments, check_sums, gradient, images, moments, normalized
from rows import sums as sums_of
from simulation import check_accesses, doors, given
from torch import Tensor

from advkernels.backends import reference

GRIDS = (2, 512)  # blocks wanted
THREADS = 256
BASE = 2**44


def from_reference(name: str) -> Callable[..., None]:
    return getattr(reference, name)


class Simulated:
    """Operators that run the kernels on the host, on one grid."""

    def __init__(self, blocks: int) -> None:
        self.grid = doors().Grid(blocks, THREADS, 0, -1)
        self.result: tuple = ()

    def __call__(self, name: str) -> Callable[..., None]:
        return getattr(self, name)

    def batch_moments_(self, mean: Tensor, variance: Tensor, total: Tensor | None, *rest: Any) -> None:
        *running, batches, x, residual, momentum = rest
        columns, tensors = addresses(mean, variance, *running), (given(x), given(residual), given(total))
        self.result = doors().simulate_batch_moments(*tensors, columns, *addresses(batches), momentum, self.grid)

    def normalize_relu_(
        self, out: Tensor, total: Tensor | None, x: Tensor, residual: Tensor | None, *rest: Any
    ) -> None:
        *columns, eps = rest
        tensors = given(out), given(total), given(x), given(residual)
        self.result = doors().simulate_normalize_relu(*tensors, addresses(*columns), eps, self.grid)

    def normalize_relu_sums_(self, sums: Tensor, grad: Tensor, x: Tensor, *rest: Any) -> None:
        *columns, eps = rest
        tensors = sums.data_ptr(), given(grad), given(x)
        self.result = doors().simulate_normalize_relu_sums(*tensors, addresses(*columns), eps, self.grid)

    def normalize_relu_backward_(
        self, grad_x: Tensor, grad: Tensor, grad_total: Tensor | None, x: Tensor, *rest: Any
    ) -> None:
        *columns, summed, eps = rest
        tensors = given(grad_x), given(grad), given(grad_total), given(x)
        self.result = doors().simulate_normalize_relu_backward(
            *tensors, addresses(*columns), *addresses(summed), eps, self.grid
        )


def addresses(*tensors: Tensor | None) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def path_of(tensor: Tensor, aligned: bool) -> str:
    width = 16 // tensor.element_size()
    vectors = "floats" if tensor.dtype == torch.float32 else "halves"
    return vectors if aligned and tensor.shape[1] % width == 0 else "strided"


def statistics(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    found = moments(from_reference, images(shape, dtype), False, False)
    return found["mean"], found["variance"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums(shape: tuple[int, int], dtype: torch.dtype, grid: int) -> None:
    for offset in (0, 1):
        i, run = images(shape, dtype, offset=offset), Simulated(grid)
        for with_residual, running in ((False, True), (True, False)):
            found = moments(run, i, with_residual, running)
            check_moments(found, i, with_residual, running)
            written, read = ([found["total"]], [i.x, i.residual]) if with_residual else ([], [i.x])
            check_accesses(run.result, written, read)
            if not with_residual:
                assert run.result[0] == path_of(i.x, offset == 0)
        mean_and_variance = statistics(shape, dtype)
        check_sums(sums_of(run, i, *mean_and_variance), i, *mean_and_variance)
        check_accesses(run.result, [], [i.x, i.grad])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elements(shape: tuple[int, int], dtype: torch.dtype, grid: int) -> None:
    mean_and_variance, run = statistics(shape, dtype), Simulated(grid)
    for offset in (0, 1):
        i = images(shape, dtype, offset=offset)
        i.x[0, 0] = i.grad[-1, -1] = math.nan
        for with_residual in (False, True):
            found = normalized(run, i, *mean_and_variance, with_residual)
            check_accesses(run.result, found, [i.x, i.residual] if with_residual else [i.x])
            for one, other in zip(found, normalized(from_reference, i, *mean_and_variance, with_residual), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        for summed in (None, torch.randn(2, shape[1])):
            for with_total in (False, True):
                written = gradient(run, i, *mean_and_variance, summed, with_total)
                check_accesses(run.result, [written], [i.x, i.grad, i.grad_total] if with_total else [i.x, i.grad])
                expected = gradient(from_reference, i, *mean_and_variance, summed, with_total)
                torch.testing.assert_close(written, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("dtype", "columns"), [(torch.float32, 64), (torch.float16, 64), (torch.bfloat16, 3)])
@pytest.mark.parametrize("around", ["first", "middle", "last"])
def test_beyond_2_to_31_elements(dtype: torch.dtype, columns: int, around: str) -> None:
    """The places that blocks read and write, on tensors that are only pretended to be there."""
    rows = 2**33 // columns + 5
    x = torch.empty(rows, columns, dtype=dtype, device="meta")
    tensors = [given(x, BASE + k * 2**36) for k in range(3)]
    column = torch.ones(columns)
    wanted = 2**20
    vector = 16 // x.element_size() if columns % 8 == 0 else 1
    column_blocks = -(-columns // (8 * vector))
    rounds = -(-rows // 32)
    share = -(-rounds // (wanted // column_blocks)) * 32
    row_block = {"first": 0, "middle": (-(-rows // share)) // 2, "last": -(-rows // share) - 1}[around]
    grid = doors().Grid(wanted, THREADS, row_block * column_blocks, row_block * column_blocks + 1, dry=True)
    place = addresses(column, column, column, column)
    _, reads, writes = doors().simulate_normalize_relu(tensors[0], None, tensors[1], None, place, EPS, grid)
    first, last = row_block * share, min((row_block + 1) * share, rows)
    shown = min(columns, 8 * vector)
    for accesses, base in ((writes, BASE), (reads, BASE + 2**36)):
        offsets = (np.sort(accesses[:, 0]) - base) // x.element_size()
        assert offsets[0] == first * columns
        assert offsets[-1] == (last - 1) * columns + shown - vector
        assert len(np.unique(offsets)) == len(offsets) == (last - first) * shown // vector


def test_statistics_move_once() -> None:
    i: Images = images((1000, 16), torch.float32)
    run, running, batches = Simulated(512), torch.zeros(2, 16), torch.tensor(7)
    mean, variance = torch.empty(2, 16)
    for _ in range(2):
        run.batch_moments_(mean, variance, None, *running, batches, i.x, None, MOMENTUM)
    torch.testing.assert_close(running[0], mean * (1 - (1 - MOMENTUM) ** 2))
    assert batches == 9
