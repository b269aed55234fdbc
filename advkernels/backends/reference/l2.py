"""The operations of l2 attacks."""

import torch
from torch import Tensor

from advkernels.backends.reference.images import broadcast, per_sample, project, write_adversarial
from advkernels.backends.reference.normal import normal
from advkernels.backends.reference.philox import logical_index, philox_bits, philox_words, sample_numbers
from advkernels.bounds import Rows, split

LANES = 1024  # of a sample's sum of squares
_RADIUS_GROUP = 2**62


@torch.no_grad()
def l2_step_(
    delta: Tensor,
    grad: Tensor,
    x: Tensor,
    bounds: Rows,
    mask: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    """d1 = d + |alpha| (alpha g) / norm(alpha g); d2 = d1 / max(norm(d1 / eps), 1), then into the box;
    stored into delta.

    Norms and the factors made of them are float64, the sums and differences of images float32.
    """
    a, eps, lo, hi = (broadcast(row, x) for row in split(bounds, 4))
    ascent = a.double() * grad.double()
    norm = l2_norm(ascent)
    known = (norm > 0) & (norm < float("inf"))  # a gradient of zeros or with a NaN has no direction
    step = torch.where(known, a.double().abs() * (ascent * (1 / norm)), 0).float()
    d = delta.float() + step
    axis = torch.where(eps > 0, 1 / eps.double(), 0)
    length = l2_norm(d.double() * axis)
    shrink = torch.where(length > 1, 1 / length, 1) * (eps > 0)
    x32 = x.float()
    d = project((d.double() * shrink).float(), x32, lo, hi)
    if mask is not None:
        d = torch.where(per_sample(mask, x), d, delta.float())
    delta.copy_(d)
    write_adversarial(out, delta, x32)


@torch.no_grad()
def l2_init_(
    delta: Tensor,
    x: Tensor,
    state: Tensor,
    bounds: Rows,
    sample_index: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    """eps radius z / norm(z) with z normal and radius in [0, 1), projected into the box, stored into delta.

    z comes from the element's bits, which are those of `uniform_init_`, radius from lane 0 of the group of the
    sample's number with bit 62 set, which no element has. The draw counter advances.
    """
    eps, lo, hi = (broadcast(row, x) for row in split(bounds, 3))
    z = normal(philox_bits(state, logical_index(x, sample_index)))
    sample = sample_numbers(x, sample_index)
    radius = (philox_words(state, sample | _RADIUS_GROUP)[..., 0] >> 8).double() * 2.0**-24
    norm = l2_norm(z.double())
    factor = radius.view(norm.shape) / norm
    x32 = x.float()
    delta.copy_(project(((z.double() * factor) * eps.double()).float(), x32, lo, hi))
    write_adversarial(out, delta, x32)
    state[1].add_(1)


def l2_norm(v: Tensor) -> Tensor:
    """Norm of each sample: the squares summed in one order, so that every backend has the same bits.

    A sample's elements, in C, H, W order, go round `LANES` sums; then the upper half is added to the lower until one
    is left.

    v: (N, ...) float64
    Returns: (N, 1, ...) float64
    """
    samples = v.shape[0] if v.dim() else 1
    rows = v.reshape(samples, v.numel() // max(samples, 1))
    rounds = -(-rows.shape[1] // LANES)
    rows = torch.nn.functional.pad(rows, (0, rounds * LANES - rows.shape[1]))
    sums = v.new_zeros(samples, LANES)
    for row in rows.view(samples, rounds, LANES).unbind(1):
        sums = sums + row * row
    while sums.shape[1] > 1:
        lower, upper = sums.chunk(2, 1)
        sums = lower + upper
    return sums.sqrt().view((samples,) + (1,) * (v.dim() - 1) if v.dim() else ())
