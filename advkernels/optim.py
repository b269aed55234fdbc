"""SGD on float32 master weights of half-precision parameters, a list of tensors in one operation."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from advkernels import checks
from advkernels.dispatch import choose, pick


class MasterSGD(torch.optim.Optimizer):
    """A drop-in for torch.optim.SGD that keeps a float32 master copy of bfloat16 and float16 parameters.

    g = grad (negated for maximize) + weight_decay w; buf = g on a parameter's first update, else
    momentum buf + (1 - dampening) g; step = g + momentum buf for nesterov, else buf; w = w - lr step, in float32 on the
    master, which is then rounded once into the parameter. float32 parameters are their own masters.

    params: parameters or parameter groups, float32, bfloat16 or float16
    lr: float or 0-dim float32 tensor, step size
    momentum, dampening, weight_decay, nesterov, maximize: as in torch.optim.SGD
    master_weights: False updates the half-precision parameters directly, momentum in their dtype, as apex's O2 did
        by default in the report's code

    `step` takes no gradient scale: with torch.amp.GradScaler use float32 parameters, or unscale before.

    Raises: ValueError or TypeError where a setting, parameter or gradient is not of these; nothing is updated then.
    Source: Micikevicius et al. 2018, "Mixed precision training", section 3.1; torch.optim.SGD's rule.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        master_weights: bool = True,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not isinstance(value, Tensor) and not 0 <= value < math.inf:
                raise ValueError(checks.wrong("MasterSGD", name, "a finite number of at least 0", value))
        if not math.isfinite(dampening):
            raise ValueError(checks.wrong("MasterSGD", "dampening", "a finite number", dampening))
        if isinstance(lr, Tensor) and (lr.dim() != 0 or not lr.is_floating_point()):
            got = f"{lr.dtype} of shape {tuple(lr.shape)}"
            raise ValueError(checks.wrong("MasterSGD", "lr", "a float or a 0-dim floating-point tensor", got))
        if nesterov and (momentum <= 0 or dampening != 0):
            got = f"{momentum} and {dampening}"
            raise ValueError(checks.wrong("MasterSGD", "nesterov", "momentum > 0 and no dampening", got))
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; their dtype must be float32, bfloat16 or float16."""
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.dtype not in checks.DTYPES:
                del self.param_groups[-1]
                raise TypeError(checks.wrong("MasterSGD", "params", "float32, bfloat16 or float16", param.dtype))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim.Optimizer's, but masters and momenta keep their own dtype, not the parameter's."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][name] = value.detach().to(param.device, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updates = [(group, param) for group in self.param_groups for param in group["params"] if param.grad is not None]
        for _, param in updates:
            _check_gradient(param)
        for group in self.param_groups:
            for device in dict.fromkeys(param.device for param in group["params"]):
                self._update(group, [p for g, p in updates if g is group and p.device == device], device)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], device: torch.device) -> None:
        states = [self._state(param, group) for param in params]
        lr = group["lr"]
        pick(choose(device), "sgd_step_")(
            params,
            [param.grad for param in params],
            [state["master"] for state in states],
            [state["momentum_buffer"] for state in states],
            [state["step"] for state in states],
            lr.to(torch.float32) if isinstance(lr, Tensor) else torch.tensor(lr, dtype=torch.float32),
            None,
            None,
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
        )
        torch.autograd.graph.increment_version(params)

    def _state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The parameter's state; what is not there yet (or was loaded from torch.optim.SGD) is made."""
        state = self.state[param]
        buffer = state.get("momentum_buffer")
        if "step" not in state:
            state["step"] = torch.full((), int(buffer is not None), dtype=torch.int64, device=param.device)
        keep = group["master_weights"] and param.dtype != torch.float32
        if "master" not in state or (keep and state["master"].numel() == 0):
            state["master"] = param.detach().float() if keep else param.new_empty(0, dtype=torch.float32)
        if buffer is None or (group["momentum"] and buffer.numel() == 0):
            dtype = torch.float32 if group["master_weights"] else param.dtype
            made = torch.zeros_like(param, dtype=dtype) if group["momentum"] else param.new_empty(0, dtype=dtype)
            state["momentum_buffer"] = made
        return state


def _check_gradient(param: Tensor) -> None:
    grad = param.grad
    assert grad is not None
    checks.dense("MasterSGD", "grad", grad)
    checks.like("MasterSGD", "grad", grad, param)
