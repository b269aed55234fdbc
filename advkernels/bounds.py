"""The bounds of an image operation (alpha, epsilon, lower, upper): as users give them and as operators take them.

An operator takes its bounds as one list of rows, in two overloads: `.values`, floats by value, each row 1 or C of
them; `.tensors`, a float32 table (N|1, C|1) a row, read on the device. Mean and std of `augment` are such rows too.
"""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from advkernels.checks import wrong

Bound = float | Sequence[float] | Tensor
Row = Sequence[float] | Tensor
Rows = Sequence[float] | Sequence[Tensor]  # a list of tables, or floats, row after row

NAMES = ("alpha", "epsilon", "lower", "upper")
FLOAT32_MAX, FLOAT32_TINY = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny


def prepare(operation: str, x: Tensor, given: Sequence[Bound]) -> tuple[str, Rows]:
    """The overload that fits, and the bounds in its form.

    given: alpha, epsilon, lower, upper, or all but alpha

    Every call of an operation passes here: it is written for speed.
    """
    rows = []
    for bound in given:
        if type(bound) is not float or not 0.0 <= bound <= FLOAT32_MAX:
            return prepare_named(operation, x, dict(zip(NAMES[-len(given) :], given, strict=True)))
        rows.append(bound)
    return "values", rows


def pack(rows: Sequence[Sequence[float]]) -> list[float]:
    """Rows of 1 or C floats as one list: C floats a row where one row has so many."""
    width = next((len(row) for row in rows if len(row) != 1), 1)
    return [value for row in rows for value in (row if len(row) == width else list(row) * width)]


def split(rows: Rows, count: int) -> list[Row]:
    """`count` rows one by one: 1 or C floats each, or tables."""
    tables = [row for row in rows if isinstance(row, Tensor)]
    if tables:
        return [*tables]
    floats = [row for row in rows if not isinstance(row, Tensor)]
    width = len(floats) // count
    return [floats[row * width : (row + 1) * width] for row in range(count)]


def prepare_named(operation: str, x: Tensor, given: dict[str, Bound]) -> tuple[str, Rows]:
    """`prepare` for bounds of any names."""
    floats = {name: bound for name, bound in given.items() if not isinstance(bound, Tensor)}
    if len(floats) == len(given):
        return "values", pack([_values(operation, name, bound, x) for name, bound in floats.items()])
    return "tensors", [_table(operation, name, bound, x) for name, bound in given.items()]


def _channels(x: Tensor) -> int:
    return x.shape[1] if x.dim() > 1 else 1


def _values(operation: str, name: str, bound: float | Sequence[float], x: Tensor) -> list[float]:
    if isinstance(bound, (float, Real)):
        values = [float(bound)]
    else:
        try:
            if isinstance(bound, (str, bytes)):
                raise TypeError
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
        if value != value:  # not math.isnan: torch.compile traces floats that may change
            raise ValueError(wrong(operation, name, "a number", value))
        if name == "epsilon" and value < 0:
            raise ValueError(wrong(operation, name, "a radius of at least 0", value))
        if name == "std" and value < FLOAT32_TINY:
            raise ValueError(wrong(operation, name, "a positive number", value))
        beyond = abs(value) > FLOAT32_MAX
        if beyond and (name not in ("lower", "upper") or abs(value) != math.inf):
            raise ValueError(wrong(operation, name, "a finite float32 number", value))


def _table(operation: str, name: str, bound: Bound, x: Tensor) -> Tensor:
    if not isinstance(bound, Tensor):
        values = _values(operation, name, bound, x)
        return torch.tensor([values], dtype=torch.float32, device=x.device)
    if not bound.is_floating_point():
        raise TypeError(wrong(operation, name, "a floating-point tensor", bound.dtype))
    if bound.device != x.device:
        raise ValueError(wrong(operation, name, f"device {x.device}", bound.device))
    table = bound.detach().reshape(_table_shape(operation, name, bound, x))
    if bound.device.type == "cpu" and not torch.compiler.is_compiling():
        _range(operation, name, table.flatten().tolist())
    return table.to(torch.float32)


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
