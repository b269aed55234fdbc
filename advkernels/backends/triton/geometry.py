"""Where the elements are: a tensor as (N, C, S), its memory order, and the part of it that a program takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels import checks

CONTIGUOUS = tl.constexpr(0)
CHANNELS_LAST = tl.constexpr(1)
STRIDED = tl.constexpr(2)

PROGRAM = 1024  # elements of a program


@dataclass(frozen=True)
class Geometry:
    """The common shape (N, C, S) of a launch's tensors and how its programs walk it."""

    order: int
    "CONTIGUOUS, CHANNELS_LAST: element i of each tensor is its i-th in memory; STRIDED: by strides"
    width: int
    "elements of a group, all of one sample and one channel where `order` is CONTIGUOUS"
    groups: int
    "numel / width"
    channels: int
    "C"
    places: int
    "S / width: groups of a plane; 1 where nobody asks"
    wide: bool
    "whether group numbers need 64 bits"
    rows: int
    "groups that a program takes at a time"
    programs: int
    "one for every `rows` groups, or one a sample"

    @property
    def constants(self) -> dict[str, Any]:
        """The compile-time arguments of the image kernels that follow from the geometry."""
        return {
            "ORDER": self.order,
            "WIDTH": self.width,
            "ROWS": self.rows,
            "WIDE": self.wide,
            "CHANNELS": self.channels,
        }

    def walkable(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The tensors, or contiguous copies of those whose places have no stride of their own."""
        if self.order != STRIDED.value:
            return list(tensors)
        return [tensor if tensor is None or _even(tensor) else tensor.contiguous() for tensor in tensors]

    def strides(self, tensors: Sequence[Tensor | None]) -> list[int]:
        """Strides of sample, channel and place of each walkable tensor."""
        if self.order != STRIDED.value:
            return [0] * (3 * len(tensors))
        return [stride for tensor in tensors for stride in _strides(tensor)]


def geometry(operation: str, tensors: Mapping[str, Tensor | None], per_plane: bool, numbered: bool = False) -> Geometry:
    """The geometry of tensors of one shape.

    per_plane: the kernel asks for an element's sample or channel
    numbered: it asks for an element's number in N, C, H, W order
    """
    given = _checked(operation, tensors)
    x = given["x"]
    _, channels, plane = _sizes(x)
    order = memory_order(list(given.values()))
    apart = per_plane or (numbered and order == CHANNELS_LAST.value)
    grouped = plane if order == CONTIGUOUS.value else 1
    divides = grouped if apart else x.numel()
    width = _width(list(given.values()), divides) if order != STRIDED.value else 1
    groups, rows = x.numel() // width, PROGRAM // width
    return Geometry(
        order=order,
        width=width,
        groups=groups,
        channels=channels,
        places=plane // width if apart or order == STRIDED.value else 1,
        wide=x.numel() >= 2**31,
        rows=rows,
        programs=-(-groups // rows),
    )


def sample_geometry(operation: str, tensors: Mapping[str, Tensor | None], per_channel: bool, together: int) -> Geometry:
    """The geometry where a program goes through one sample, `together` elements at a time in C, H, W order.

    per_channel: the kernel asks for an element's channel
    Returns: `groups` are those of a sample
    """
    given = _checked(operation, tensors)
    samples, channels, plane = _sizes(given["x"])
    contiguous = memory_order(list(given.values())) == CONTIGUOUS.value
    features = channels * plane
    width = _width(list(given.values()), plane if per_channel else features) if contiguous else 1
    return Geometry(
        order=(CONTIGUOUS if contiguous else STRIDED).value,
        width=width,
        groups=features // width,
        channels=channels,
        places=plane // width if per_channel or not contiguous else 1,
        wide=features >= 2**31,
        rows=together // width,
        programs=samples,
    )


def _checked(operation: str, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Those tensors that are given, all alike."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        checks.dense(operation, name, tensor)
        checks.like(operation, name, tensor, given["x"])
    return given


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """(N, C, S); C is a constant of the kernel."""
    samples = x.shape[0] if x.dim() > 0 else 1
    channels = int(x.shape[1]) if x.dim() > 1 else 1
    return samples, channels, x.numel() // (samples * channels)


def _width(tensors: Sequence[Tensor], divides: int) -> int:
    """Elements that are sixteen bytes of each tensor, or 1 where they do not divide a number.

    Four elements where dtypes differ, since a program keeps one layout for all.
    """
    widest = 8 if all(tensor.dtype != torch.float32 for tensor in tensors) else 4
    return widest if divides % widest == 0 else 1


def memory_order(tensors: list[Tensor]) -> int:
    """The order that all the tensors lie in, STRIDED where there is none."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return CONTIGUOUS.value
    if all(tensor.dim() > 2 and tensor.movedim(1, -1).is_contiguous() for tensor in tensors):
        return CHANNELS_LAST.value
    return STRIDED.value


def _strides(tensor: Tensor | None) -> tuple[int, int, int]:
    if tensor is None:
        return 0, 0, 0
    outer = [*tensor.stride()[:2], 0, 0]
    inner = [stride for size, stride in zip(tensor.shape[2:], tensor.stride()[2:], strict=True) if size != 1]
    return outer[0], outer[1], inner[-1] if inner else 0


def _even(tensor: Tensor) -> bool:
    """Whether one stride leads through all the places of a plane."""
    spacing = None
    for size, stride in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if size == 1:
            continue
        if spacing is not None and stride != spacing:
            return False
        spacing = stride * size
    return True


@triton.jit
def program_groups(ROWS: tl.constexpr):
    """(ROWS, 1) int64: the groups of this program."""
    return (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]


@triton.jit
def coordinates(group, places, ORDER: tl.constexpr, WIDE: tl.constexpr, CHANNELS: tl.constexpr):
    """int64 sample, channel and place of a group, by 32-bit division where that is enough."""
    kind: tl.constexpr = tl.uint64 if WIDE else tl.uint32
    index = group.to(kind)
    s_size = tl.cast(places, kind)
    if ORDER == CHANNELS_LAST:
        channel = index % CHANNELS
        rest = index // CHANNELS
        place = rest % s_size
        sample = rest // s_size
    else:
        place = index % s_size
        rest = index // s_size
        channel = rest % CHANNELS
        sample = rest // CHANNELS
    return sample.to(tl.int64), channel.to(tl.int64), place.to(tl.int64)


@triton.jit
def offset(element, sample, channel, place, n_stride, c_stride, s_stride, ORDER: tl.constexpr):
    """int64 offset of an element of one tensor."""
    if ORDER == STRIDED:
        return sample * n_stride + channel * c_stride + place * s_stride
    else:
        return element


@triton.jit
def sample_groups(
    n, first, groups, places, ORDER: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of sample n's groups from `first` on: (ROWS, 1) which there are, elements (ROWS, WIDTH), channels and places."""
    group = (tl.cast(first, tl.int64) + tl.arange(0, ROWS))[:, None]
    _, c, s = coordinates(group, places, ORDER, WIDE, CHANNELS)
    element = (n * groups + group) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return group < groups, element, c, s
