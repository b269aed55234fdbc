"""Tables of addresses on the device: how one launch reaches many tensors."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_kept = WeakTensorKeyDictionary()


def device_table(numbers: Sequence[int], device: torch.device) -> Tensor:
    """int64 (len(numbers),) on the device.

    The numbers travel in kernel arguments: a copy from host memory could not be captured in a CUDA graph.
    """
    table = torch.zeros(len(numbers), dtype=torch.int64, device=device)
    torch._foreach_add_(list(table.unbind()), list(numbers))
    return table


def kept_table(numbers: Sequence[int], owner: Tensor) -> Tensor:
    """`device_table`, kept for the next call as long as its owner lives, and so as long as a graph that uses both."""
    tables = _kept.setdefault(owner, {})
    key = tuple(numbers)
    if key in tables:
        return tables[key]
    table = device_table(numbers, owner.device)
    if not _capturing(owner.device):  # a captured table is filled by the replay
        tables[key] = table
    return table


def recent_table(numbers: Sequence[int], device: torch.device) -> Tensor:
    """`device_table` of numbers that change often, but mostly among a few: of gradients."""
    if device.type != "cuda" or _capturing(device):  # a graph needs a table of its own
        return device_table(numbers, device)
    return _recent(tuple(numbers), device, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(maxsize=16)
def _recent(numbers: tuple[int, ...], device: torch.device, stream: int) -> Tensor:
    return device_table(numbers, device)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
