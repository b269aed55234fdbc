"""The bounds of a kernel: floats by value, up to four a bound, or tables (N|1, C|1) on the device."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels.bounds import Row, Rows, split

BY_VALUE = 4

# How a kernel reads a bound: one float, floats per channel, or a table of one of four shapes.
SCALAR = tl.constexpr(0)
VALUES = tl.constexpr(1)
TABLE = tl.constexpr(2)
TABLE_CHANNELS = tl.constexpr(3)
TABLE_SAMPLES = tl.constexpr(4)
TABLE_BOTH = tl.constexpr(5)


def pack(bounds: Rows, count: int, x: Tensor) -> tuple[list[float | Tensor], list[int]]:
    """The kernel's arguments, four for each of `count` rows, and the rows' forms."""
    packed = [_pack(row, x) for row in split(bounds, count)]
    return [argument for arguments, _ in packed for argument in arguments], [form for _, form in packed]


def _pack(row: Row, x: Tensor) -> tuple[list[float | Tensor], int]:
    if isinstance(row, Tensor):
        samples, channels = row.shape
        many, one = (TABLE_BOTH, TABLE_SAMPLES) if samples > 1 else (TABLE_CHANNELS, TABLE)
        return [row.contiguous(), 0.0, 0.0, 0.0], (many if channels > 1 else one).value
    values = [float(value) for value in row]
    if len(values) == 1:
        return [*values, 0.0, 0.0, 0.0], SCALAR.value
    if len(values) <= BY_VALUE:
        return [*values, *[0.0] * (BY_VALUE - len(values))], VALUES.value
    # Filled on the device: a copy from the host could not be captured in a CUDA graph.
    table = torch.stack([torch.full((), value, dtype=torch.float32, device=x.device) for value in values])
    return [table, 0.0, 0.0, 0.0], TABLE_CHANNELS.value


def per_plane(forms: Sequence[int]) -> bool:
    """Whether one of these forms asks for an element's sample or channel."""
    return per_channel(forms) or TABLE_SAMPLES.value in forms


def per_channel(forms: Sequence[int]) -> bool:
    """Whether one of these forms asks for an element's channel."""
    return any(form in (VALUES.value, TABLE_CHANNELS.value, TABLE_BOTH.value) for form in forms)


@triton.jit
def bound(first, second, third, fourth, sample, channel, CHANNELS: tl.constexpr, inside, FORM: tl.constexpr):
    """float32 bound of each group: a scalar, or (rows, 1)."""
    # torch.compile passes a float as float64: rounded here, as an eager launch rounds it on the host.
    if FORM == SCALAR:
        return tl.cast(first, tl.float32)
    elif FORM == VALUES:
        low = tl.where(channel == 0, tl.cast(first, tl.float32), tl.cast(second, tl.float32))
        high = tl.where(channel == 2, tl.cast(third, tl.float32), tl.cast(fourth, tl.float32))
        return tl.where(channel < 2, low, high)
    else:
        index = tl.zeros_like(channel)
        if FORM == TABLE_CHANNELS:
            index = channel
        if FORM == TABLE_SAMPLES:
            index += sample  # which may be one for all
        if FORM == TABLE_BOTH:
            index = sample * CHANNELS + channel
        return tl.load(first + index, inside)
