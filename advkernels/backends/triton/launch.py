"""How a kernel is launched: eager, traced by torch.compile, or interpreted."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

# The interpreter's kernels are called as they are. Under this name torch finds the kernels for its cache keys.
wrap_triton: Callable[..., Any] = (lambda kernel: kernel) if INTERPRETED.value else torch.library.wrap_triton


def launch(
    kernel: Any, grid: tuple[int], device: torch.device, arguments: Sequence[Any], constants: dict[str, Any]
) -> None:
    """Launch what `wrap_triton` gave.

    An eager launch needs the tensors' device to be the current one, and forbids fused products. A traced one takes no
    compiler options: there `elements.multiply` alone keeps products from being fused.
    """
    if isinstance(kernel, triton.JITFunction):
        with torch.cuda.device(device):
            kernel[grid](*arguments, **constants, enable_fp_fusion=False)
    else:
        kernel[grid](*arguments, **constants)
