"""SGD with momentum on float32 masters."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from advkernels.backends.triton.elements import load, multiply, store
from advkernels.backends.triton.geometry import STRIDED, geometry, memory_order, program_groups
from advkernels.backends.triton.launch import launch, wrap_triton


@triton.jit
def _sgd_step_kernel(
    param,
    grad,
    master,
    momentum_buffer,
    step,
    lr,
    inv_scale,
    found_inf,
    groups,
    momentum,
    undamped,
    weight_decay,
    MOMENTUM: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    group = program_groups(ROWS)
    if found_inf is not None:
        groups = tl.where(tl.load(found_inf) == 0, groups, 0)
    inside = group < groups
    element = group * WIDTH + tl.arange(0, WIDTH)[None, :]
    g = load(grad, element, inside)
    if master is not None:
        w = load(master, element, inside)
    else:
        w = load(param, element, inside)
    if inv_scale is not None:
        g = multiply(g, tl.load(inv_scale))
    if MAXIMIZE:
        g = -g
    if WEIGHT_DECAY:
        g = g + multiply(w, weight_decay)
    if MOMENTUM:
        old = load(momentum_buffer, element, inside)
        new = multiply(old, momentum) + multiply(g, undamped)
        new = tl.where(tl.load(step) == 0, g, new)
        store(momentum_buffer, element, new, inside)
        if NESTEROV:
            g = g + multiply(new, momentum)
        else:
            g = new
    w = w - multiply(g, tl.load(lr))
    if master is not None:
        store(master, element, w, inside)
    store(param, element, w, inside)


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
    """One launch a tensor, and one that advances the steps; see `reference.sgd_step_`."""
    if not params:
        return
    rate = lr.to(device=params[0].device, dtype=torch.float32)
    kernel = wrap_triton(_sgd_step_kernel)
    for param, grad, master, buffer, step in zip(params, grads, masters, momentum_buffers, steps, strict=True):
        if param.numel() == 0:
            continue
        given = {"x": param, "grad": grad}
        if master.numel() > 0:
            given["master"] = master
        if momentum != 0:
            given["momentum_buffer"] = buffer
        walked = given
        if memory_order(list(given.values())) == STRIDED.value:
            walked = {name: tensor.contiguous() for name, tensor in given.items()}
        shape = geometry("sgd_step_", walked, per_plane=False)
        arguments = [
            *(walked["x"], walked["grad"], walked.get("master"), walked.get("momentum_buffer")),
            *(step, rate, inv_scale, found_inf, shape.groups, momentum, 1 - dampening, weight_decay),
        ]
        constants = {
            "MOMENTUM": momentum != 0,
            "WEIGHT_DECAY": weight_decay != 0,
            "NESTEROV": nesterov,
            "MAXIMIZE": maximize,
            "WIDTH": shape.width,
            "ROWS": shape.rows,
        }
        launch(kernel, shape.grid, param.device, arguments, constants)
        for name, tensor in given.items():
            if name != "grad" and walked[name] is not tensor:
                tensor.copy_(walked[name])
    if found_inf is None:
        torch._foreach_add_(list(steps), 1)
    else:
        torch._foreach_add_(list(steps), (found_inf == 0).to(torch.int64).reshape(()))
