"""Every operation as a Triton kernel behind an operator of the namespace `advkernels_triton`.

All but the optimizer's step are `triton_op`s: torch.compile traces through them to the kernels.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from advkernels.backends.triton.augment import augment_
from advkernels.backends.triton.column_sums import batch_moments_, normalize_relu_sums_
from advkernels.backends.triton.l2_init import l2_init_
from advkernels.backends.triton.l2_step import l2_step_
from advkernels.backends.triton.launch import INTERPRETED
from advkernels.backends.triton.normalization import normalize_relu_, normalize_relu_backward_
from advkernels.backends.triton.sgd_step import sgd_step_
from advkernels.backends.triton.sign_step import sign_step_
from advkernels.backends.triton.uniform_init import uniform_init_
from advkernels.bounds import Rows
from advkernels.schemas import SCHEMAS, fake

_LIBRARY = torch.library.Library("advkernels_triton", "FRAGMENT")
_LAUNCHERS: dict[str, Any] = {
    "sign_step_": sign_step_,
    "l2_step_": l2_step_,
    "uniform_init_": uniform_init_,
    "l2_init_": l2_init_,
    "augment_": augment_,
    "batch_moments_": batch_moments_,
    "normalize_relu_": normalize_relu_,
    "normalize_relu_sums_": normalize_relu_sums_,
    "normalize_relu_backward_": normalize_relu_backward_,
    "sgd_step_": sgd_step_,
}


def _typed(launcher: FunctionType, bounds: object) -> Callable[..., None]:
    """The launcher with its bounds annotated as one overload has them: torch 2.11 infers a triton_op's schema."""
    typed = FunctionType(launcher.__code__, launcher.__globals__, launcher.__name__, launcher.__defaults__)
    typed.__annotations__ = {
        name: bounds if annotation == Rows else annotation for name, annotation in launcher.__annotations__.items()
    }
    return typed


def _register() -> None:
    for name, schema in SCHEMAS.items():
        arguments = torch._C.parse_schema("operation" + schema).arguments
        written = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
        operator, _, overload = name.partition(".")
        launcher = _typed(_LAUNCHERS[operator], list[torch.Tensor] if overload == "tensors" else list[float])
        # A table of addresses cannot be traced: the multi-tensor step stays one opaque call.
        define: Any = torch.library.custom_op if operator == "sgd_step_" else torch.library.triton_op
        define(f"advkernels_triton::{name}", launcher, mutates_args=written, schema=schema).register_fake(fake)
        # An eager call goes straight to the launcher, as in the namespace `advkernels`. Under torch 2.11 the kernels
        # that are replaced here fail where an optional argument to be written is absent.
        _LIBRARY.impl(name, launcher, "CPU" if INTERPRETED.value else "CUDA")
        for key in ("Autograd", "ADInplaceOrView"):
            _LIBRARY.impl(name, torch.library.fallthrough_kernel, key, allow_override=True)


_register()
