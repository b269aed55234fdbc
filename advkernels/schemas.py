"""Every operator's schema with its fake kernel, and the reference as its default kernel.

A bound (alpha, epsilon, lower, upper) comes in two overloads: `.values`, 1 or C floats that a kernel takes by value,
and `.tensors`, float32 tables of shape (N|1, C|1) that it reads on the device.
An absent master or momentum buffer in the lists of `sgd_step_` is a tensor of no elements.
"""

from collections.abc import Callable
from typing import Any

import torch

from advkernels.backends import reference

LIBRARY = torch.library.Library("advkernels", "DEF")

SCHEMAS = {
    "sign_step_.values": "(Tensor(a!) delta, Tensor grad, Tensor x, float[] alpha, float[] epsilon, "
    "float[] lower, float[] upper, Tensor? mask, Tensor(b!)? out) -> ()",
    "sign_step_.tensors": "(Tensor(a!) delta, Tensor grad, Tensor x, Tensor alpha, Tensor epsilon, "
    "Tensor lower, Tensor upper, Tensor? mask, Tensor(b!)? out) -> ()",
    "uniform_init_.values": "(Tensor(a!) delta, Tensor x, Tensor(b!) state, float[] epsilon, "
    "float[] lower, float[] upper, Tensor? sample_index, Tensor(c!)? out) -> ()",
    "uniform_init_.tensors": "(Tensor(a!) delta, Tensor x, Tensor(b!) state, Tensor epsilon, "
    "Tensor lower, Tensor upper, Tensor? sample_index, Tensor(c!)? out) -> ()",
    "sgd_step_": "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] masters, Tensor(c!)[] momentum_buffers, "
    "Tensor(d!)[] steps, Tensor lr, Tensor? inv_scale, Tensor? found_inf, float momentum, float dampening, "
    "float weight_decay, bool nesterov, bool maximize) -> ()",
}

DEFAULTS: dict[str, Callable[..., None]] = {
    "sign_step_": reference.sign_step_,
    "uniform_init_": reference.uniform_init_,
    "sgd_step_": reference.sgd_step_,
}


def fake(*args: Any, **kwargs: Any) -> None:
    """Every operator writes into its arguments and returns nothing: there is no shape to infer."""


def _register() -> None:
    for name, schema in SCHEMAS.items():
        LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        LIBRARY.impl(name, DEFAULTS[name.partition(".")[0]], "CompositeExplicitAutograd")
        torch.library.register_fake(f"advkernels::{name}", fake, lib=LIBRARY)


_register()
