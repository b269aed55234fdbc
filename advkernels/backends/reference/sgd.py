"""The update of the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor


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


def _store(target: Tensor, value: Tensor, apply: Tensor | None) -> None:
    target.copy_(value if apply is None else torch.where(apply, value.to(target.dtype), target))
