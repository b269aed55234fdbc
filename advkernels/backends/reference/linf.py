"""The operations of l-inf attacks."""

import torch
from torch import Tensor

from advkernels.backends.reference.images import broadcast, per_sample, project, write_adversarial
from advkernels.backends.reference.philox import logical_index, philox_bits
from advkernels.bounds import Rows, split


@torch.no_grad()
def sign_step_(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    bounds: Rows,
    mask: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    """d1 = clamp(d + alpha sign(g), -eps, eps); d2 = max(min(d1, upper - x), lower - x); stored into delta."""
    a, eps, lo, hi = (broadcast(row, x) for row in split(bounds, 4))
    g, x32 = grad.float(), x.float()
    sign = (g > 0).float() - (g < 0).float()
    d = delta.float() + a * sign
    d = project(torch.maximum(torch.minimum(d, eps), -eps), x32, lo, hi)
    if mask is not None:
        d = torch.where(per_sample(mask, x), d, delta.float())
    delta.copy_(d)
    write_adversarial(out, delta, x32)


@torch.no_grad()
def uniform_init_(
    delta: Tensor,
    x: Tensor,
    state: Tensor,
    bounds: Rows,
    sample_index: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    """u * (2 eps) - eps with u in [0, 1), projected into the box, stored into delta; the draw counter advances."""
    eps, lo, hi = (broadcast(row, x) for row in split(bounds, 3))
    bits = philox_bits(state, logical_index(x, sample_index))
    u = (bits >> 8).float() * 2.0**-24
    x32 = x.float()
    delta.copy_(project(u * (2 * eps) - eps, x32, lo, hi))
    write_adversarial(out, delta, x32)
    state[1].add_(1)
