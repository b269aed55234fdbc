"""Every operation in plain PyTorch: the definition that all other backends equal bit for bit.

The arithmetic is float32, one rounding an operation, and one more at the store. Arguments are those of the operators
in `schemas.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from advkernels.bounds import Row, Rows, split

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


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
    a, eps, lo, hi = (_broadcast(row, x) for row in split(bounds, 4))
    g, x32 = grad.float(), x.float()
    sign = (g > 0).float() - (g < 0).float()
    d = delta.float() + a * sign
    d = _project(torch.maximum(torch.minimum(d, eps), -eps), x32, lo, hi)
    if mask is not None:
        d = torch.where(_per_sample(mask, x), d, delta.float())
    delta.copy_(d)
    _write_adversarial(out, delta, x32)


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
    eps, lo, hi = (_broadcast(row, x) for row in split(bounds, 3))
    bits = philox_bits(state, _logical_index(x, sample_index))
    u = (bits >> 8).float() * 2.0**-24
    x32 = x.float()
    delta.copy_(_project(u * (2 * eps) - eps, x32, lo, hi))
    _write_adversarial(out, delta, x32)
    state[1].add_(1)


@torch.no_grad()
def sgd_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    masters: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    steps: Sequence[Tensor],
    lr: Tensor,
    inv_scale: Tensor | None,
    found_inf: Tensor | None,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """The rule of torch.optim.SGD on float32 masters, every product and every sum rounded on its own."""
    apply = None if found_inf is None else found_inf == 0
    for param, grad, master, buffer, step in zip(params, grads, masters, momentum_buffers, steps, strict=True):
        weight = master if master.numel() else param
        w, g = weight.float(), grad.float()
        rate = lr.to(device=param.device, dtype=torch.float32)
        if inv_scale is not None:
            g = g * inv_scale
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * w
        if momentum:
            b = buffer.float()
            b = torch.where(step == 0, g, momentum * b + (1 - dampening) * g)
            g = g + momentum * b if nesterov else b
            _store(buffer, b, apply)
        new = w - rate * g
        _store(weight, new, apply)
        if weight is not param:
            _store(param, new, apply)
        _store(step, step + 1, apply)


def philox_bits(state: Tensor, index: Tensor) -> Tensor:
    """The 32 random bits of each element: lane index % 4 of Philox4x32-10 at counter (index // 4, draw).

    state: (2,) int64, (seed, draw)
    index: int64, logical element index
    Returns: int64 in [0, 2**32), the shape of index
    """
    group, lane = index.div(4, rounding_mode="floor"), index.remainder(4)
    key = [state[0] & _MASK32, state[0] >> 32 & _MASK32]
    counter = [group & _MASK32, group >> 32 & _MASK32, state[1] & _MASK32, state[1] >> 32 & _MASK32]
    counter = [word.expand_as(index) for word in counter]
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], counter[0])
        high1, low1 = _multiply(_MULTIPLIERS[1], counter[2])
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(word + weyl) & _MASK32 for word, weyl in zip(key, _WEYL, strict=True)]
    return torch.stack(counter, -1).gather(-1, lane.unsqueeze(-1)).squeeze(-1)


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32 x 32 bit product, in int64 arithmetic that never overflows."""
    low = constant * (word & 0xFFFF)
    high = constant * (word >> 16) + (low >> 16)
    return high >> 16, (high << 16 | low & 0xFFFF) & _MASK32


def _logical_index(x: Tensor, sample_index: Tensor | None) -> Tensor:
    """(N, C, H, W) int64: the index in N, C, H, W order, with sample_index[n] in the place of n."""
    index = torch.arange(x.numel(), dtype=torch.int64, device=x.device).view(x.shape)
    if sample_index is None or x.numel() == 0:
        return index
    features = x.numel() // x.shape[0]
    within = index[:1]
    return _per_sample(sample_index, x) * features + within


def _project(d: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(d, upper - x), lower - x)


def _write_adversarial(out: Tensor | None, delta: Tensor, x: Tensor) -> None:
    if out is not None:
        out.copy_(x + delta.float())


def _store(target: Tensor, value: Tensor, apply: Tensor | None) -> None:
    target.copy_(value if apply is None else torch.where(apply, value.to(target.dtype), target))


def _broadcast(row: Row, x: Tensor) -> Tensor:
    """A float32 tensor of x's number of dimensions that broadcasts over x."""
    if isinstance(row, Tensor):
        table = row
    elif len(row) == 1:
        return torch.full((), row[0], dtype=torch.float32, device=x.device)
    else:
        table = torch.tensor(row, dtype=torch.float32, device=x.device).unsqueeze(0)
    return table.reshape((table.shape + (1,) * x.dim())[: x.dim()]) if x.dim() else table.reshape(())


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1))
