"""How a kernel is launched: eager, traced by torch.compile, or interpreted."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.functional_tensor import FunctionalTensor

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def traced(tensor: Tensor) -> bool:
    """Whether torch.compile is tracing: then kernels are called through `torch.library.wrap_triton`."""
    return isinstance(tensor, FunctionalTensor)


def launch(
    kernel: Any, grid: tuple[int], device: torch.device, arguments: Sequence[Any], constants: dict[str, Any]
) -> None:
    """Launch a kernel, or what `wrap_triton` made of it.

    An eager launch needs the tensors' device to be the current one, and forbids fused products. A traced one takes no
    compiler options: there `elements.multiply` alone keeps products from being fused.
    """
    if isinstance(kernel, triton.JITFunction):
        with torch.cuda.device(device):
            kernel[grid](*arguments, **constants, enable_fp_fusion=False)
    else:
        kernel[grid](*arguments, **constants)
