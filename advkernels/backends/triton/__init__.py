"""Every operation as a Triton kernel behind an operator of the namespace `advkernels_triton`.

Those of images are `triton_op`s: torch.compile traces through them to the kernels.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from advkernels.backends.triton.bounds import Bound
from advkernels.backends.triton.sgd_step import sgd_step_
from advkernels.backends.triton.sign_step import sign_step_
from advkernels.backends.triton.uniform_init import uniform_init_
from advkernels.schemas import SCHEMAS

_LAUNCHERS: dict[str, Callable[..., None]] = {
    "sign_step_": sign_step_,
    "uniform_init_": uniform_init_,
    "sgd_step_": sgd_step_,
}


def _typed(launcher: Callable[..., None], bound: Any) -> Callable[..., None]:
    """The launcher with its bounds annotated as one overload has them: torch 2.11 infers a triton_op's schema."""

    @functools.wraps(launcher)
    def typed(*args: Any, **kwargs: Any) -> None:
        launcher(*args, **kwargs)

    signature = inspect.signature(launcher)
    parameters = [p.replace(annotation=bound) if p.annotation == Bound else p for p in signature.parameters.values()]
    typed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return typed


def _register() -> None:
    for name, schema in SCHEMAS.items():
        arguments = torch._C.parse_schema("operation" + schema).arguments
        written = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
        operator, _, overload = name.partition(".")
        launcher = _typed(_LAUNCHERS[operator], torch.Tensor if overload == "tensors" else list[float])
        # A table of addresses cannot be traced: the multi-tensor step stays one opaque call.
        define = torch.library.custom_op if operator == "sgd_step_" else torch.library.triton_op
        define(f"advkernels_triton::{name}", launcher, mutates_args=written, schema=schema)


_register()
