"""BatchNorm and ReLU behind a sum for `gpu_kernels.py`: the layers of PreActResNet18's first and last stage."""

from collections.abc import Callable

import torch
from norms import PASSES, Norm

import advkernels as ak
from advkernels import dispatch

SHAPES = ((128, 64, 32, 32), (128, 512, 4, 4))


def norm_operations(
    shape: tuple[int, ...], dtype: torch.dtype, sets: int
) -> dict[str, dict[str, tuple[int, Callable[[int], object]]]]:
    """By operation and contender: bytes a call moves at least, and the call on one of the sets of tensors."""
    norms = [Norm(shape, dtype, "cuda") for _ in range(sets)]
    size = PASSES * norms[0].x.nbytes
    calls: dict[str, tuple[int, Callable[[int], object]]] = {}
    for name in ("native", "triton"):
        if dispatch.why_missing(name, "cuda") is None:
            with ak.backend(name):
                norms[0].check(norms[0].ours)
            calls[name] = (size, lambda i, name=name: _on(name, norms[i]))
    calls["torch.compile"] = (size, lambda i: norms[i].compile())
    calls["eager"] = (size, lambda i: norms[i].eager())
    return {f"add_batch_norm_relu and gradients, {shape[1]} channels": calls}


def _on(name: str, norm: Norm) -> object:
    with ak.backend(name):
        return norm.ours()
