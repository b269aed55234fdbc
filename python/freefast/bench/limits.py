"""What the device could do: arithmetic by the vendor's data sheet or measured, memory measured."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

_TERA = 1e12
Kind = torch.dtype | Literal["tf32"]


class Sheet(NamedTuple):
    """A vendor's figures."""

    source: str
    """Where they are published."""
    devices: tuple[str, ...]
    """Names by CUDA; part of a device, as MIG makes them, has another."""
    tera: dict[Kind, float]
    """TFLOP/s: tensor cores without sparsity, but float32, which they do not multiply."""


_HOPPER: dict[Kind, float] = {torch.float16: 989.4, torch.bfloat16: 989.4, "tf32": 494.7, torch.float32: 66.9}
SHEETS = (
    Sheet("NVIDIA H100 Tensor Core GPU architecture white paper: SXM5", ("NVIDIA H100 80GB HBM3",), _HOPPER),
    Sheet("NVIDIA H200 Tensor Core GPU data sheet: SXM, half of what it says with sparsity", ("NVIDIA H200",), _HOPPER),
    Sheet(
        "NVIDIA H100 Tensor Core GPU data sheet: PCIe, half of what it says with sparsity",
        ("NVIDIA H100 PCIe",),
        {torch.float16: 756.0, torch.bfloat16: 756.0, "tf32": 378.0, torch.float32: 51.0},
    ),
    Sheet(
        "NVIDIA A100 Tensor Core GPU data sheet",
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"),
        {torch.float16: 312.0, torch.bfloat16: 312.0, "tf32": 156.0, torch.float32: 19.5},
    ),
)
"""Of devices whose arithmetic is known."""

_CALLS = 5
_SIDE = {"cuda": 8192, "cpu": 1024}
"""Of the matrices whose product is timed."""
_COPIED = 2**28
"""Bytes, more than caches hold."""


class Limit(NamedTuple):
    """The most arithmetic that the device does in a second."""

    flops: float
    """FLOP/s."""
    source: str
    """Where the figure comes from."""


def arithmetic(device: torch.device, dtype: torch.dtype) -> Limit:
    """Of convolutions in a dtype, by data sheet, else measured; float32 is TF32 where PyTorch lets cuDNN take it."""
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    kind: Kind = "tf32" if dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else dtype
    for sheet in SHEETS:
        if device_name in sheet.devices:
            return Limit(sheet.tera[kind] * _TERA, f"data sheet: {sheet.source}, {_name(kind)}")
    # A CPU may emulate halves in products, and compute its convolutions in float32.
    tried = {dtype, torch.float32} if device.type == "cpu" else {dtype}
    flops, name = max((matmul(device, one), _name(one)) for one in tried)
    side = _SIDE[device.type]
    return Limit(flops, f"measured: torch.matmul of {side} x {side} {name} matrices")


def matmul(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of a few calls."""
    side = _SIDE[device.type]
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        return 2 * side**3 / _best(lambda: torch.matmul(one, other), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def memory(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes, the best of a few calls."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED / _best(lambda: target.copy_(source), device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    call()
    seconds = []
    for _ in range(_CALLS):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(kind: Kind) -> str:
    return str(kind).removeprefix("torch.")
