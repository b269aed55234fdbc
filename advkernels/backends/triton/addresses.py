"""Tables of addresses on the device: how one launch reaches many tensors."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

RECENT = 16  # tables that are kept of each kind

_kept = WeakTensorKeyDictionary()  # owner -> recent tables, captured tables


def device_table(numbers: Sequence[int], device: torch.device) -> Tensor:
    """int64 (len(numbers),) on the device.

    The numbers travel in kernel arguments: a copy from host memory could not be captured in a CUDA graph.
    """
    table = torch.zeros(len(numbers), dtype=torch.int64, device=device)
    torch._foreach_add_(list(table.unbind()), list(numbers))
    return table


def kept_table(numbers: Sequence[int], owner: Tensor) -> Tensor:
    """`device_table`, kept for the owner's next calls; one that a graph has captured, as long as the owner lives."""
    recent, captured = _kept.setdefault(owner, ({}, {}))
    key = tuple(numbers)
    table = recent.get(key)
    if _capturing(owner.device):
        if table is None:
            return device_table(numbers, owner.device)  # the graph's own, filled by its replay
        captured[key] = table
    elif table is None:
        while len(recent) >= RECENT:
            del recent[next(iter(recent))]
        table = recent[key] = device_table(numbers, owner.device)
    return table


def recent_table(numbers: Sequence[int], device: torch.device) -> Tensor:
    """`device_table` of numbers that change often, but mostly among a few: of gradients."""
    if device.type != "cuda" or _capturing(device):  # a graph needs a table of its own
        return device_table(numbers, device)
    return _recent(tuple(numbers), device, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(maxsize=RECENT)
def _recent(numbers: tuple[int, ...], device: torch.device, stream: int) -> Tensor:
    return device_table(numbers, device)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
