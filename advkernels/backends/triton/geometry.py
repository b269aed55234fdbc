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

    @property
    def rows(self) -> int:
        """Groups of a program."""
        return PROGRAM // self.width

    @property
    def grid(self) -> tuple[int]:
        """One program for every `rows` groups."""
        return (-(-self.groups // self.rows),)

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
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    x = given["x"]
    for name, tensor in given.items():
        checks.dense(operation, name, tensor)
        checks.like(operation, name, tensor, x)
    samples = x.shape[0] if x.dim() > 0 else 1
    channels = int(x.shape[1]) if x.dim() > 1 else 1  # a constant of the kernel
    plane = x.numel() // (samples * channels)
    order = memory_order(list(given.values()))
    apart = per_plane or (numbered and order == CHANNELS_LAST.value)
    # Sixteen bytes of each tensor; four elements where dtypes differ, since a program keeps one layout for all.
    widest = 8 if all(tensor.dtype != torch.float32 for tensor in given.values()) else 4
    grouped = plane if order == CONTIGUOUS.value else 1
    width = widest if order != STRIDED.value and (grouped if apart else x.numel()) % widest == 0 else 1
    return Geometry(
        order=order,
        width=width,
        groups=x.numel() // width,
        channels=channels,
        places=plane // width if apart or order == STRIDED.value else 1,
        wide=x.numel() >= 2**31,
    )


def memory_order(tensors: list[Tensor]) -> int:
    """The order that all the tensors lie in, STRIDED where there is none."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return CONTIGUOUS.value
    if all(tensor.dim() > 2 and tensor.movedim(1, -1).is_contiguous() for tensor in tensors):
        return CHANNELS_LAST.value
    return STRIDED.value


def copy_back(written: Sequence[Tensor | None], walked: Sequence[Tensor | None]) -> None:
    """What the kernel wrote into copies, into the tensors that were given."""
    for target, source in zip(written, walked, strict=True):
        if target is not None and source is not None and source is not target:
            target.copy_(source)


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
