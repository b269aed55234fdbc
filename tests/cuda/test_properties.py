"""Any shape, strides, storage offset, dtype and bound: the kernels' code writes its tensors and nothing else."""

import pytest
import torch
from hypothesis import given, settings, strategies
from hypothesis.strategies import DrawFn
from test_grids import DTYPES, INITS, STEPS, check_init, check_step
from torch import Tensor


@strategies.composite
def placed(draw: DrawFn, shape: tuple[int, ...]) -> Tensor:
    """A tensor of any dtype: dimensions in any order, some with steps, somewhere in a buffer."""
    order = draw(strategies.permutations(range(len(shape))))
    steps = draw(strategies.lists(strategies.sampled_from([1, 1, 2]), min_size=len(shape), max_size=len(shape)))
    strides, reach = [0] * len(shape), 1
    for dim in order:
        strides[dim] = reach * steps[dim]
        reach = strides[dim] * max(shape[dim], 1)
    offset = draw(strategies.integers(0, 9))
    dtype = draw(strategies.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(strategies.integers(0, 99)))
    buffer = torch.randn(offset + reach, generator=generator).to(dtype)
    return buffer.as_strided(shape, strides, offset)


@strategies.composite
def arguments(draw: DrawFn) -> tuple:
    """delta, grad, x, out or None, bounds, and for every sample whether it is masked, or None."""
    shape = tuple(draw(strategies.lists(strategies.integers(0, 7), min_size=1, max_size=5)))
    memory_formats = strategies.booleans() if len(shape) == 4 else strategies.just(False)
    tensors = []
    for _ in range(4):
        tensor = draw(placed(shape))
        if draw(memory_formats):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        tensors.append(tensor)
    out = tensors[3] if draw(strategies.booleans()) else None
    samples, channels = shape[0], (shape[1] if len(shape) > 1 else 1)
    rows, columns = draw(strategies.sampled_from([1, samples])), draw(strategies.sampled_from([1, channels]))
    table = torch.linspace(0.05, 1, max(rows * columns, 1))[: rows * columns].view(rows, columns)
    bounds = [table, table + 0.1, -table, table]
    mask = torch.arange(samples) % 3 != 1 if draw(strategies.booleans()) else None
    return (*tensors[:3], out, bounds, mask)


GRIDS = strategies.tuples(strategies.integers(1, 5), strategies.sampled_from([4, 32, 64]))


@settings(max_examples=100, deadline=None)
@given(arguments(), GRIDS)
@pytest.mark.parametrize("name", STEPS)
def test_step(name: str, given_arguments: tuple, grid: tuple[int, int]) -> None:
    delta, grad, x, out, bounds, mask = given_arguments
    check_step(name, delta, grad, x, out, bounds, mask, grid)


@settings(max_examples=100, deadline=None)
@given(arguments(), GRIDS)
@pytest.mark.parametrize("name", INITS)
def test_init(name: str, given_arguments: tuple, grid: tuple[int, int]) -> None:
    delta, _, x, out, bounds, mask = given_arguments
    index = None if mask is None else torch.arange(len(mask)).flip(0) * 1000
    check_init(name, delta, x, out, bounds, index, grid)
