"""SGD with momentum on float32 masters: one launch for all tensors of the same dtypes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels import checks
from advkernels.backends.triton.addresses import device_table, kept_table
from advkernels.backends.triton.elements import load, multiply, store
from advkernels.backends.triton.geometry import STRIDED, copy_back, memory_order
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


@dataclass(frozen=True)
class _Member:
    """The tensors of one parameter, in one memory order: those given, or contiguous copies of all."""

    param: Tensor
    grad: Tensor
    master: Tensor | None
    momentum_buffer: Tensor | None
    step: Tensor

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Those of the parameter's shape."""
        return self.param, self.grad, self.master, self.momentum_buffer

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the members of one launch have in common: the dtypes, and whether all are 16-byte aligned."""
        dtypes = (None if tensor is None else tensor.dtype for tensor in self.tensors)
        return *dtypes, all(tensor.data_ptr() % 16 == 0 for tensor in self.tensors if tensor is not None)

    def walkable(self) -> "_Member":
        """Itself, where element i of each tensor is its i-th in memory, else a copy of which that is true."""
        if memory_order([tensor for tensor in self.tensors if tensor is not None]) != STRIDED.value:
            return self
        param, grad, master, momentum_buffer = map(_contiguous, self.tensors)
        return _Member(param, grad, master, momentum_buffer, self.step)


def _contiguous(tensor: Any) -> Any:
    return None if tensor is None else tensor.contiguous()


def _check(params: Sequence[Tensor], **lists: Sequence[Tensor]) -> None:
    """Every tensor there is has its parameter's shape and device."""
    for name, tensors in lists.items():
        for tensor, param in zip(tensors, params, strict=True):
            if tensor.numel() > 0 or name == "grads":
                checks.dense("sgd_step_", name, tensor)
                checks.like("sgd_step_", name, tensor, param)


def _table(members: Sequence[_Member]) -> tuple[list[int], int]:
    """The table's numbers, and how many chunks the members have."""
    numbers, chunks = [], 0
    for member in members:
        pointers = (member.step, member.param, member.master, member.momentum_buffer)
        addresses = (0 if tensor is None else tensor.data_ptr() for tensor in pointers)
        numbers += [chunks, member.param.numel(), *addresses]
        chunks += -(-member.param.numel() // CHUNK)
    return numbers, chunks


def _launch(members: Sequence[_Member], scalars: Sequence[Any], settings: dict[str, bool], keep: bool) -> None:
    """One launch over members of one kind."""
    first = members[0]
    numbers, chunks = _table(members)
    table = kept_table(numbers, first.param) if keep else device_table(numbers, first.param.device)
    grads = device_table([member.grad.data_ptr() for member in members], first.param.device)
    *dtypes, aligned = first.kind
    names = ("PARAM_TYPE", "GRAD_TYPE", "MASTER_TYPE", "MOMENTUM_TYPE")
    constants = {
        **dict(zip(names, (_TYPES.get(dtype) for dtype in dtypes), strict=True)),
        **settings,
        "ALIGNED": aligned,
        "ROWS": triton.next_power_of_2(len(members)),
        "WIDTH": 4 if torch.float32 in dtypes else 8,
        "CHUNK": CHUNK,
    }
    launch(_sgd_step_kernel, (chunks,), first.param.device, [table, grads, len(members), *scalars], constants)


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
    """One launch for all tensors of the same dtypes, and one that advances the steps; see `reference.sgd_step_`."""
    _check(params, grads=grads, masters=masters, momentum_buffers=momentum_buffers if momentum else params)
    if not params:
        return
    device = params[0].device
    rate = lr if lr.device == device else torch.full((), lr.item(), dtype=torch.float32, device=device)
    scalars = [rate, inv_scale, found_inf, momentum, 1 - dampening, weight_decay]
    settings = {"WEIGHT_DECAY": weight_decay != 0, "NESTEROV": nesterov, "MAXIMIZE": maximize}
    launches: dict[tuple[Any, ...], list[tuple[_Member, _Member]]] = {}
    for param, grad, master, buffer, step in zip(params, grads, masters, momentum_buffers, steps, strict=True):
        if param.numel() > 0:
            given = _Member(param, grad, master if master.numel() else None, buffer if momentum else None, step)
            walked = given.walkable()
            launches.setdefault((*walked.kind, walked is given), []).append((given, walked))
    for (*_, in_place), pairs in launches.items():
        _launch([walked for _, walked in pairs], scalars, settings, keep=in_place)
        for given, walked in pairs:
            copy_back((given.param, *given.tensors[2:]), (walked.param, *walked.tensors[2:]))
    if found_inf is None:
        torch._foreach_add_(list(steps), 1)
    else:
        torch._foreach_add_(list(steps), (found_inf == 0).to(torch.int64).reshape(()))
