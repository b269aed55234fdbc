"""Every operator's schema with its fake kernel, and the reference as its default kernel.

The bounds of an image operation (alpha of a step, epsilon, lower, upper) come in two overloads, which
`bounds.py` explains; so do mean and std of `augment_`, its scales.
The operators of BatchNorm and ReLU take images as contiguous rows (R, C) of one dtype, a row a pixel; columns (C,)
and sums (2, C) are float32.
An absent master or momentum buffer in the lists of `sgd_step_` is a tensor of no elements.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advkernels import checks
from advkernels.backends import reference
from advkernels.bounds import Rows

LIBRARY = torch.library.Library("advkernels", "DEF")

_STEP = "(Tensor(a!) delta, Tensor grad, Tensor x, {}[] bounds, Tensor? mask, Tensor(b!)? out) -> ()"
_INIT = "(Tensor(a!) delta, Tensor x, Tensor(b!) state, {}[] bounds, Tensor? sample_index, Tensor(c!)? out) -> ()"

_AUGMENT = "(Tensor(a!) out, Tensor images, Tensor index, Tensor? state, {}[] scales, int padding, bool flip) -> ()"

_NORMAL = "Tensor mean, Tensor variance, Tensor weight, Tensor bias"

SCHEMAS = {
    "sign_step_.values": _STEP.format("float"),
    "sign_step_.tensors": _STEP.format("Tensor"),
    "l2_step_.values": _STEP.format("float"),
    "l2_step_.tensors": _STEP.format("Tensor"),
    "uniform_init_.values": _INIT.format("float"),
    "uniform_init_.tensors": _INIT.format("Tensor"),
    "l2_init_.values": _INIT.format("float"),
    "l2_init_.tensors": _INIT.format("Tensor"),
    "augment_.values": _AUGMENT.format("float"),
    "augment_.tensors": _AUGMENT.format("Tensor"),
    "batch_moments_": "(Tensor(a!) mean, Tensor(b!) variance, Tensor(c!)? total, Tensor(d!)? running_mean, "
    "Tensor(e!)? running_var, Tensor(f!)? batches, Tensor x, Tensor? residual, float momentum) -> ()",
    "normalize_relu_": f"(Tensor(a!) out, Tensor(b!)? total, Tensor x, Tensor? residual, {_NORMAL}, float eps) -> ()",
    "normalize_relu_sums_": f"(Tensor(a!) sums, Tensor grad, Tensor x, {_NORMAL}, float eps) -> ()",
    "normalize_relu_backward_": f"(Tensor(a!) grad_x, Tensor grad, Tensor? grad_total, Tensor x, {_NORMAL}, "
    "Tensor? sums, float eps) -> ()",
    "sgd_step_": "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] masters, Tensor(c!)[] momentum_buffers, "
    "Tensor(d!)[] steps, Tensor lr, Tensor? inv_scale, Tensor? found_inf, float momentum, float dampening, "
    "float weight_decay, bool nesterov, bool maximize) -> ()",
}

DEFAULTS: dict[str, Callable[..., None]] = {
    "sign_step_": reference.sign_step_,
    "l2_step_": reference.l2_step_,
    "uniform_init_": reference.uniform_init_,
    "l2_init_": reference.l2_init_,
    "augment_": reference.augment_,
    "batch_moments_": reference.batch_moments_,
    "normalize_relu_": reference.normalize_relu_,
    "normalize_relu_sums_": reference.normalize_relu_sums_,
    "normalize_relu_backward_": reference.normalize_relu_backward_,
    "sgd_step_": reference.sgd_step_,
}


def _step(operation: str) -> Callable[..., None]:
    def checked(delta: Tensor, grad: Tensor, x: Tensor, bounds: Rows, mask: Tensor | None, out: Tensor | None) -> None:
        checks.images(operation, x, {"grad": grad}, delta, out)
        DEFAULTS[operation](delta, grad, x, bounds, mask, out)

    return checked


def _init(operation: str) -> Callable[..., None]:
    def checked(
        delta: Tensor, x: Tensor, state: Tensor, bounds: Rows, sample_index: Tensor | None, out: Tensor | None
    ) -> None:
        checks.images(operation, x, {}, delta, out)
        DEFAULTS[operation](delta, x, state, bounds, sample_index, out)

    return checked


def _augment(
    out: Tensor, images: Tensor, index: Tensor, state: Tensor | None, scales: Rows, padding: int, flip: bool
) -> None:
    checks.augmentation("augment_", images, index, state, padding, flip, out)
    reference.augment_(out, images, index, state, scales, padding, flip)


_CHECKED = {name: _step(name) for name in ("sign_step_", "l2_step_")}
_CHECKED |= {name: _init(name) for name in ("uniform_init_", "l2_init_")}
_CHECKED["augment_"] = _augment
"""As default kernels: the dispatcher takes these for sparse, quantised and other tensors that no kernel is for."""


def fake(*args: Any, **kwargs: Any) -> None:
    """Every operator writes into its arguments and returns nothing: there is no shape to infer.

    Raises: RuntimeError where some tensors are on the meta device and others are not, as PyTorch's operators do
    """
    tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Tensor)]
    if len({tensor.is_meta for tensor in tensors}) > 1:
        raise RuntimeError("wanted all tensors on the meta device, or none")


def _register() -> None:
    for name, schema in SCHEMAS.items():
        LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        operator = name.partition(".")[0]
        LIBRARY.impl(name, _CHECKED.get(operator, DEFAULTS[operator]), "CompositeExplicitAutograd")
        torch.library.register_fake(f"advkernels::{name}", fake, lib=LIBRARY)


_register()
