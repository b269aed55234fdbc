"""The case table of the image operations: dtypes, shapes, layouts and bounds."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Sizes 0 and 1, vector widths -1, 0 and +1, odd sizes, several tiles, more dimensions or fewer than an image has.
SHAPES = (
    (4, 3, 8, 8), (5, 3, 33, 31), (2, 5, 1, 1), (0, 3, 4, 4), (3, 0, 2, 2), (1, 1, 1, 1), (1, 1, 1, 7), (1, 1, 1, 9),
    (3, 15), (2, 3, 17), (2, 3, 2, 3, 5), (1, 1030, 1, 2),
)  # fmt: skip
LAYOUTS = ("contiguous", "channels_last", "mixed", "offset", "strided")
BOUNDS = ("scalar", "channel_values", "channel_tensor", "sample_tensor", "both_tensor")


@dataclass(frozen=True)
class Case:
    dtype: torch.dtype
    shape: tuple[int, ...]
    layout: str
    bounds: str

    def __str__(self) -> str:
        return f"{str(self.dtype)[6:]}-{'x'.join(map(str, self.shape))}-{self.layout}-{self.bounds}"


def cases() -> list[Case]:
    """Every layout with every kind of bound on every shape, the dtypes in turn."""
    table = itertools.product(SHAPES, LAYOUTS, BOUNDS)
    return [Case(DTYPES[i % 3], *rest) for i, rest in enumerate(table)]


def place(tensor: Tensor, layout: str, role: int) -> Tensor:
    """The same values in another place: memory format, storage offset or strides. role varies it between arguments."""
    if layout == "offset":
        buffer = torch.zeros(tensor.numel() + 1 + role, dtype=tensor.dtype, device=tensor.device)
        return buffer[1 + role :].view(tensor.shape).copy_(tensor)
    if layout == "strided":
        buffer = torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype, device=tensor.device)
        return buffer[..., role % 2 :: 2].copy_(tensor)
    if tensor.dim() == 4 and (layout == "channels_last" or (layout == "mixed" and role % 2 == 0)):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


def bound(kind: str, scale: float, x: Tensor, generator: torch.Generator) -> tuple[object, Tensor]:
    """A bound as a user gives it, and as a tensor that broadcasts over x."""
    n, c, trailing = x.shape[0], x.shape[1], (1,) * (x.dim() - 2)
    if kind == "scalar":
        return scale, torch.tensor(scale)
    shape = {"channel_values": (1, c), "channel_tensor": (1, c), "sample_tensor": (n, 1), "both_tensor": (n, c)}[kind]
    table = (scale * (0.5 + torch.rand(shape, generator=generator))).to(x.device)
    full = table.view(*shape, *trailing)
    if kind == "channel_values":
        return tuple(table.flatten().tolist()) or scale, full
    return (table.flatten() if kind == "channel_tensor" else full), full


def images(case: Case, device: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """delta, grad, x with every special value that a float can have among them."""

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(case.shape, generator=generator)).to(case.dtype)

    delta, grad, x = draw(-0.2, 0.2), draw(-1, 1), draw(0, 1)
    special = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-8, -1e-8, 6e4], dtype=case.dtype)
    for position, tensor in enumerate((grad, delta, x)):
        if tensor.numel() > 64:
            start = 1 + 9 * position  # never the same element of two tensors
            tensor.view(-1)[start : start + len(special)] = special
    parts = [place(tensor.to(device), case.layout, role) for role, tensor in enumerate((delta, grad, x))]
    return parts[0], parts[1], parts[2]


def same(one: Tensor, other: Tensor) -> bool:
    """Equal in shape, dtype and every value, NaN in the same places."""
    one, other = one.cpu(), other.cpu()
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
