"""Running the CUDA kernels' code on the host: tensors as the doors take them, and what every run has to keep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advkernels.backends import native
from advkernels.bounds import split

VALUE_CHANNELS = 4  # bounds of more channels reach the kernels as tables


def doors() -> Any:
    """The compiled test doors."""
    bindings = native.bindings()
    if bindings is None:
        pytest.skip("no compiled bindings for this Python")
    return bindings


def given(tensor: Tensor | None, address: int | None = None) -> tuple | None:
    """A tensor as the doors take it, or one that is only pretended to lie at an address."""
    if tensor is None:
        return None
    place = tensor.data_ptr() if address is None else address
    return place, str(tensor.dtype)[6:], list(tensor.shape), list(tensor.stride())


def given_bounds(bounds: Sequence[float] | Sequence[Tensor]) -> tuple[list, list]:
    """(values, tables): floats as they are while they fit into a kernel's arguments."""
    rows = split(bounds, 4)
    if not isinstance(rows[0], Tensor) and len(rows[0]) <= VALUE_CHANNELS:
        return list(bounds), []
    tables = [row if isinstance(row, Tensor) else torch.tensor([row]) for row in rows]
    given_bounds.alive = tables  # type: ignore[attr-defined]
    strides = [[t.stride(dim) if t.shape[dim] > 1 else 0 for dim in range(2)] for t in tables]
    return [], [(table.data_ptr(), *stride) for table, stride in zip(tables, strides, strict=True)]


def units(tensor: Tensor) -> np.ndarray:
    """The address of every two bytes of a tensor's elements, or of every byte where they have one."""
    offsets = torch.zeros(tensor.shape, dtype=torch.int64)
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        shape = [1] * tensor.dim()
        shape[dim] = size
        offsets = offsets + (torch.arange(size) * stride).view(shape)
    return _split(tensor.data_ptr() + offsets.numpy().reshape(-1) * tensor.element_size(), tensor.element_size())


def check_accesses(result: tuple, written: Sequence[Tensor], read: Sequence[Tensor]) -> None:
    """Every element of `written` was written once, nothing else was; reads stayed inside; all accesses are aligned."""
    _, reads, writes = result
    for accesses in (reads, writes):
        assert (accesses[:, 0] % accesses[:, 1] == 0).all()
    touched = np.concatenate([_split(writes[writes[:, 1] == size, 0], size) for size in (2, 4, 8, 16)])
    expected = np.concatenate([units(torch.empty(0)), *(units(tensor) for tensor in written)])
    assert np.array_equal(np.sort(touched), np.sort(expected))
    fetched = np.concatenate([_split(reads[reads[:, 1] == size, 0], size) for size in (1, 2, 4, 8, 16)])
    assert np.isin(fetched, np.concatenate([units(tensor) for tensor in (*written, *read)])).all()


def _split(addresses: np.ndarray, size: int) -> np.ndarray:
    return (addresses[:, None] + np.arange(0, size, min(size, 2))).reshape(-1)
