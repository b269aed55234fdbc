"""SGD with momentum on float32 masters: one launch for all tensors of the same dtypes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels import checks
from advkernels.backends.triton.addresses import device_table, kept_table, recent_table
from advkernels.backends.triton.elements import load, multiply, store
from advkernels.backends.triton.geometry import STRIDED, memory_order
from advkernels.backends.triton.launch import launch

CHUNK = 2048  # elements of a program

# Columns of the table, which has a row a tensor.
COLUMNS = tl.constexpr(6)
FIRST_CHUNK = tl.constexpr(0)
NUMEL = tl.constexpr(1)
STEP = tl.constexpr(2)
PARAM = tl.constexpr(3)
MASTER = tl.constexpr(4)
MOMENTUM_BUFFER = tl.constexpr(5)

_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def _pointer(entry, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = tl.load(entry).to(tl.pointer_type(TYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _update(
    row,
    grad_entry,
    element,
    inside,
    lr,
    inv_scale,
    momentum,
    undamped,
    weight_decay,
    PARAM_TYPE: tl.constexpr,
    GRAD_TYPE: tl.constexpr,
    MASTER_TYPE: tl.constexpr,
    MOMENTUM_TYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    MAXIMIZE: tl.constexpr,
):
    g = load(_pointer(grad_entry, GRAD_TYPE, ALIGNED), element, inside)
    param = _pointer(row + PARAM, PARAM_TYPE, ALIGNED)
    if MASTER_TYPE is None:
        w = load(param, element, inside)
    else:
        w = load(_pointer(row + MASTER, MASTER_TYPE, ALIGNED), element, inside)
    if inv_scale is not None:
        g = multiply(g, tl.load(inv_scale))
    if MAXIMIZE:
        g = -g
    if WEIGHT_DECAY:
        g = g + multiply(w, weight_decay)
    if MOMENTUM_TYPE is not None:
        buffer = _pointer(row + MOMENTUM_BUFFER, MOMENTUM_TYPE, ALIGNED)
        moved = multiply(load(buffer, element, inside), momentum) + multiply(g, undamped)
        first = tl.load(_pointer(row + STEP, tl.int64, False)) == 0
        moved = tl.where(first, g, moved)
        store(buffer, element, moved, inside)
        if NESTEROV:
            g = g + multiply(moved, momentum)
        else:
            g = moved
    w = w - multiply(g, tl.load(lr))
    if MASTER_TYPE is not None:
        store(_pointer(row + MASTER, MASTER_TYPE, ALIGNED), element, w, inside)
    store(param, element, w, inside)


@triton.jit
def _sgd_step_kernel(
    table,
    grads,
    tensors,
    lr,
    inv_scale,
    found_inf,
    momentum,
    undamped,
    weight_decay,
    PARAM_TYPE: tl.constexpr,
    GRAD_TYPE: tl.constexpr,
    MASTER_TYPE: tl.constexpr,
    MOMENTUM_TYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):
    rows = tl.arange(0, ROWS)
    firsts = tl.load(table + rows * COLUMNS + FIRST_CHUNK, rows < tensors, other=0x7FFFFFFF)
    number = tl.sum((firsts <= tl.program_id(0)).to(tl.int32)) - 1
    row = table + number * COLUMNS
    start = (tl.program_id(0) - tl.load(row + FIRST_CHUNK)) * CHUNK
    numel = tl.load(row + NUMEL)
    if found_inf is not None:
        numel = tl.where(tl.load(found_inf) == 0, numel, 0)
    element = start + tl.arange(0, CHUNK // WIDTH)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    # A whole chunk needs no mask, which would forbid wide accesses where numel is not a multiple of their width.
    if start + CHUNK <= numel:
        _update(
            row, grads + number, element, None, lr, inv_scale, momentum, undamped, weight_decay,
            PARAM_TYPE, GRAD_TYPE, MASTER_TYPE, MOMENTUM_TYPE, ALIGNED, WEIGHT_DECAY, NESTEROV, MAXIMIZE,
        )  # fmt: skip
    else:
        _update(
            row, grads + number, element, element < numel, lr, inv_scale, momentum, undamped, weight_decay,
            PARAM_TYPE, GRAD_TYPE, MASTER_TYPE, MOMENTUM_TYPE, ALIGNED, WEIGHT_DECAY, NESTEROV, MAXIMIZE,
        )  # fmt: skip


@triton.jit
def _advance_kernel(table, tensors, found_inf, ROWS: tl.constexpr):
    """Count the step of every tensor, after all have read it."""
    rows = tl.arange(0, ROWS)
    inside = rows < tensors
    if found_inf is not None:
        inside = rows < tl.where(tl.load(found_inf) == 0, tensors, 0)
    step = tl.load(table + rows * COLUMNS + STEP, inside, other=0).to(tl.pointer_type(tl.int64))
    tl.store(step, tl.load(step, inside) + 1, inside)


@dataclass
class _Launch:
    """The parameters of one launch, alike in dtypes and alignment, and all or none of them copies."""

    owner: Tensor
    constants: dict[str, Any]
    numbers: list[int] = field(default_factory=list)
    "the table, row after row"
    grads: list[int] = field(default_factory=list)
    "addresses"
    chunks: int = 0
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    "what was given, and the contiguous copy that the kernel writes"
    read: list[Tensor] = field(default_factory=list)
    "contiguous copies of gradients, whose memory is the kernel's until it has been launched"

    def run(self, scalars: Sequence[Any]) -> None:
        """Launch; scalars: rate, inv_scale, found_inf and the settings."""
        device, count = self.owner.device, len(self.grads)
        table = device_table(self.numbers, device) if self.copies else kept_table(self.numbers, self.owner)
        rows = {"ROWS": triton.next_power_of_2(count)}
        if self.chunks:
            arguments = [table, recent_table(self.grads, device), count, *scalars]
            launch(_sgd_step_kernel, (self.chunks,), device, arguments, self.constants | rows)
        launch(_advance_kernel, (1,), device, [table, count, scalars[2]], rows)
        for given, copy in self.copies:
            given.copy_(copy)


def _walkable(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, where element i of each is its i-th in memory, else contiguous copies."""
    return [tensor.contiguous() for tensor in tensors] if memory_order(tensors) == STRIDED.value else tensors


def _types(dtypes: Sequence[torch.dtype | None]) -> dict[str, Any]:
    names = ("PARAM_TYPE", "GRAD_TYPE", "MASTER_TYPE", "MOMENTUM_TYPE")
    types = {name: None if dtype is None else _TYPES[dtype] for name, dtype in zip(names, dtypes, strict=True)}
    return types | {"WIDTH": 4 if torch.float32 in dtypes else 8}


def sgd_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    masters: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    steps: Sequence[Tensor],
    lr: Tensor,
    inv_scale: Tensor | None,
    found_inf: Tensor | None,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """One launch for all tensors of the same dtypes, and one that advances their steps; see `reference.sgd_step_`."""
    launches: dict[tuple[Any, ...], _Launch] = {}
    settings = {"WEIGHT_DECAY": weight_decay != 0, "NESTEROV": nesterov, "MAXIMIZE": maximize, "CHUNK": CHUNK}
    for param, grad, master, buffer, step in zip(params, grads, masters, momentum_buffers, steps, strict=True):
        present = [param, grad]
        has_master = master.numel() > 0
        if has_master:
            present.append(master)
        if momentum:
            present.append(buffer)
        for tensor in present:
            if tensor.shape != param.shape or tensor.device != param.device or tensor.dtype not in _TYPES:
                checks.dense("sgd_step_", "tensors", tensor)
                checks.like("sgd_step_", "tensors", tensor, param)
        walked = _walkable(present)
        addresses = [tensor.data_ptr() for tensor in walked]
        aligned = all(address % 16 == 0 for address in addresses)
        dtypes = (param.dtype, grad.dtype, master.dtype if has_master else None, buffer.dtype if momentum else None)
        kind = (dtypes, aligned, walked is present)
        if kind not in launches:
            launches[kind] = _Launch(param, _types(dtypes) | settings | {"ALIGNED": aligned})
        group = launches[kind]
        numel = param.numel()
        group.numbers += [group.chunks, numel, step.data_ptr(), addresses[0]]
        group.numbers += [addresses[2] if has_master else 0, addresses[-1] if momentum else 0]
        group.grads.append(addresses[1])
        group.chunks += -(-numel // CHUNK)
        if walked is not present:
            group.copies += [(present[i], walked[i]) for i in range(len(present)) if i != 1]
            group.read.append(walked[1])
    if launches:
        device = params[0].device
        rate = lr if lr.device == device else torch.full((), lr.item(), dtype=torch.float32, device=device)
        for group in launches.values():
            group.run([rate, inv_scale, found_inf, momentum, 1 - dampening, weight_decay])
