"""What the operations of images share: broadcast bounds, the box, the adversarial image."""

import torch
from torch import Tensor

from advkernels.bounds import Row


def broadcast(row: Row, x: Tensor) -> Tensor:
    """A float32 tensor of x's number of dimensions that broadcasts over x."""
    if isinstance(row, Tensor):
        table = row
    elif len(row) == 1:
        return torch.full((), row[0], dtype=torch.float32, device=x.device)
    else:
        # each a fill: a copy from host memory could not be captured in a CUDA graph
        table = torch.empty((1, len(row)), dtype=torch.float32, device=x.device)
        for channel, value in enumerate(row):
            table[:, channel].fill_(value)
    return table.reshape((table.shape + (1,) * x.dim())[: x.dim()]) if x.dim() else table.reshape(())


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1))


def project(d: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Into the box [lower, upper] of x + d."""
    return torch.maximum(torch.minimum(d, upper - x), lower - x)


def write_adversarial(out: Tensor | None, delta: Tensor, x: Tensor) -> None:
    if out is not None:
        out.copy_(x + delta.float())
