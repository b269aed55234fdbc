"""What the operations refuse: errors that name operation, argument, wanted and got, before anything is written."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_DIMS = 8  # of the native loops
FLOAT32_MAX = torch.finfo(torch.float32).max


def wrong(operation: str, argument: str, wanted: str, got: object) -> str:
    """The one form of every message."""
    return f"{operation}: {argument}: wanted {wanted}, got {got}"


def images(operation: str, x: Tensor, read: dict[str, Tensor], written: dict[str, Tensor | None]) -> None:
    """Tensors of a supported dtype, of x's shape and device; the written ones writable, in memory of their own.

    Every call of an operation passes here: it is written for speed.
    """
    if not isinstance(x, Tensor):
        raise TypeError(wrong(operation, "x", "a tensor", type(x).__name__))
    if x.dim() > MAX_DIMS:
        raise ValueError(wrong(operation, "x", f"at most {MAX_DIMS} dimensions", x.dim()))
    shape, device = x.shape, x.device
    present = [("x", x), *read.items(), *((name, tensor) for name, tensor in written.items() if tensor is not None)]
    for argument, tensor in present:
        if not isinstance(tensor, Tensor):
            raise TypeError(wrong(operation, argument, "a tensor", type(tensor).__name__))
        if tensor.dtype not in DTYPES or tensor.layout is not torch.strided:
            dense(operation, argument, tensor)
        if tensor.shape != shape or tensor.device != device:
            like(operation, argument, tensor, x)
    for argument, tensor in present[1 + len(read) :]:
        writable(operation, argument, tensor)
    if not torch.compiler.is_compiling():
        _disjoint(operation, present, len(read) + 1)


def dense(operation: str, argument: str, tensor: Tensor) -> None:
    """A dense floating-point tensor of a supported dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(wrong(operation, argument, "a tensor", type(tensor).__name__))
    if tensor.dtype not in DTYPES:
        raise TypeError(wrong(operation, argument, "float32, bfloat16 or float16", tensor.dtype))
    if tensor.layout is not torch.strided:
        raise TypeError(wrong(operation, argument, "a dense (strided) tensor", tensor.layout))


def like(operation: str, argument: str, tensor: Tensor, other: Tensor) -> None:
    """A tensor of the other's shape and device."""
    if tensor.shape != other.shape:
        raise ValueError(wrong(operation, argument, f"shape {tuple(other.shape)}", tuple(tensor.shape)))
    if tensor.device != other.device:
        raise ValueError(wrong(operation, argument, f"device {other.device}", tensor.device))


def per_sample(operation: str, argument: str, tensor: Tensor | None, x: Tensor, dtype: torch.dtype) -> None:
    """A tensor (N,) of the given dtype on x's device, or None."""
    if tensor is None:
        return
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(wrong(operation, argument, f"a {dtype} tensor", got))
    if x.dim() == 0 or tensor.shape != x.shape[:1]:
        raise ValueError(wrong(operation, argument, f"shape {tuple(x.shape[:1])}, one a sample", tuple(tensor.shape)))
    if tensor.device != x.device:
        raise ValueError(wrong(operation, argument, f"device {x.device}", tensor.device))


def writable(operation: str, argument: str, tensor: Tensor) -> None:
    """A tensor that may be written in place: no gradient recorded for it, no two elements in one place."""
    if tensor.requires_grad and torch.is_grad_enabled():
        kind = "a leaf that requires grad" if tensor.is_leaf else "a tensor that requires grad"
        raise ValueError(wrong(operation, argument, "a tensor written under torch.no_grad() or detached", kind))
    if tensor.is_contiguous() or torch.compiler.is_compiling():
        return
    if not _ordered(tensor) and _overlaps_itself(tensor):
        raise ValueError(wrong(operation, argument, "one place in memory an element", "a tensor that overlaps itself"))


def _disjoint(operation: str, present: list[tuple[str, Tensor]], first_written: int) -> None:
    """No tensor from first_written on shares memory with one before it."""
    spans = [_span(tensor) for _, tensor in present]
    for i in range(first_written, len(present)):
        start, end = spans[i]
        for j in range(i):
            if start < spans[j][1] and spans[j][0] < end and _overlap(present[i][1], present[j][1]):
                got = f"memory shared with {present[j][0]}"
                raise ValueError(wrong(operation, present[i][0], "memory of its own", got))


def bounds(operation: str, x: Tensor, **given: float | Sequence[float] | Tensor) -> tuple[str, list]:
    """The overload and the bounds in its form: ("values", lists of floats) or ("tensors", (N|1, C|1) tables)."""
    usual = [[bound] for bound in given.values() if type(bound) is float and 0.0 <= bound <= FLOAT32_MAX]
    if len(usual) == len(given):
        return "values", usual
    floats = {name: bound for name, bound in given.items() if not isinstance(bound, Tensor)}
    if len(floats) == len(given):
        return "values", [_values(operation, name, bound, x) for name, bound in floats.items()]
    return "tensors", [_table(operation, name, bound, x) for name, bound in given.items()]


def _channels(x: Tensor) -> int:
    return x.shape[1] if x.dim() > 1 else 1


def _values(operation: str, name: str, bound: float | Sequence[float], x: Tensor) -> list[float]:
    if isinstance(bound, (float, Real)):
        values = [float(bound)]
    else:
        try:
            values = [float(value) for value in bound]
        except (TypeError, ValueError):
            wanted = "a float, floats per channel or a tensor"
            raise TypeError(wrong(operation, name, wanted, type(bound).__name__)) from None
        if len(values) != 1 and len(values) != _channels(x):  # comparisons that torch.compile can trace
            wanted = f"1 or {_channels(x)} floats, one a channel"
            raise ValueError(wrong(operation, name, wanted, f"{len(values)} floats"))
    _range(operation, name, values)
    return values


def _range(operation: str, name: str, values: Sequence[float]) -> None:
    for value in values:
        if math.isnan(value):
            raise ValueError(wrong(operation, name, "a number", value))
        if name == "epsilon" and value < 0:
            raise ValueError(wrong(operation, name, "a radius of at least 0", value))
        beyond = abs(value) > FLOAT32_MAX
        if beyond and (name in ("alpha", "epsilon") or not math.isinf(value)):
            raise ValueError(wrong(operation, name, "a finite float32 number", value))


def _table(operation: str, name: str, bound: float | Sequence[float] | Tensor, x: Tensor) -> Tensor:
    if not isinstance(bound, Tensor):
        values = _values(operation, name, bound, x)
        return torch.tensor([values], dtype=torch.float32, device=x.device)
    if not bound.is_floating_point():
        raise TypeError(wrong(operation, name, "a floating-point tensor", bound.dtype))
    if bound.device != x.device:
        raise ValueError(wrong(operation, name, f"device {x.device}", bound.device))
    table = bound.detach().to(torch.float32).reshape(_table_shape(operation, name, bound, x))
    if bound.device.type == "cpu" and not torch.compiler.is_compiling():
        _range(operation, name, table.flatten().tolist())
    return table


def _table_shape(operation: str, name: str, bound: Tensor, x: Tensor) -> tuple[int, int]:
    samples, channels = (x.shape[0] if x.dim() else 1), _channels(x)
    trailing = (1,) * max(x.dim() - 2, 0)
    shape = tuple(bound.shape)
    if shape == () or (len(shape) <= x.dim() and all(size == 1 for size in shape)):
        return 1, 1
    if shape in ((channels,), (channels, *trailing)):
        return 1, channels
    if len(shape) == x.dim() and shape[0] in (1, samples) and shape[1:] in ((1, *trailing), (channels, *trailing)):
        return shape[0], (shape[1] if x.dim() > 1 else 1)
    per_channel = f"({channels},) or {(channels, *trailing)} per channel, {(samples, 1, *trailing)} per sample"
    forms = per_channel if x.dim() > 1 else "one element"
    raise ValueError(wrong(operation, name, forms, shape))


def _ordered(tensor: Tensor) -> bool:
    """Whether the strides alone show that no two elements share a place."""
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return tensor.numel() < 2
            reach = stride * (size - 1) + reach
    return True


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte and the one behind the last, as addresses; nothing where there is no memory (meta, fake)."""
    if type(tensor) is not Tensor and isinstance(tensor, FakeTensor):
        return 0, 0
    start = tensor.data_ptr()
    if start == 0 or tensor.is_contiguous():
        return start, start + tensor.nbytes if start else 0
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors whose spans meet have a byte in common."""
    (start, end), (other_start, other_end) = _span(one), _span(other)
    base, limit = min(start, other_start), max(end, other_end)
    return bool((_touched(one, base, limit) & _touched(other, base, limit)).any())


def _overlaps_itself(tensor: Tensor) -> bool:
    start, end = _span(tensor)
    return int(_touched(tensor, start, end).sum()) != tensor.numel() * tensor.element_size()


def _touched(tensor: Tensor, base: int, limit: int) -> Tensor:
    """One bool a byte of [base, limit): whether the tensor has it."""
    size = tensor.element_size()
    touched = torch.zeros(limit - base, dtype=torch.bool)
    strides = [stride * size for stride in tensor.stride()]
    touched.as_strided([*tensor.shape, size], [*strides, 1], tensor.data_ptr() - base).fill_(True)
    return touched
