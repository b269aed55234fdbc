"""SGD on float32 master weights of half-precision parameters, a list of tensors in one operation."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from advkernels import checks
from advkernels.dispatch import choose, pick

_SETTINGS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "master_weights")


class MasterSGD(torch.optim.Optimizer):
    """A drop-in for torch.optim.SGD that keeps a float32 master copy of bfloat16 and float16 parameters.

    It takes torch.optim.SGD's arguments but foreach, fused and differentiable.

    g = grad (negated for maximize) + weight_decay w; buf = g on a parameter's first update with momentum, else
    momentum buf + (1 - dampening) g; step = g + momentum buf for nesterov, else buf; w = w - lr step, in float32 on the
    master, which is then rounded once into the parameter. float32 parameters are their own masters.

    params: parameters or parameter groups with settings of their own, dense, float32, bfloat16 or float16
    lr: float or floating-point tensor of one number on any device, step size
    momentum, dampening, weight_decay, nesterov, maximize: as in torch.optim.SGD
    master_weights: False updates the half-precision parameters directly, momentum in their dtype, as apex's O2 did
        by default in the report's code

    torch.amp.GradScaler's step sets grad_scale (None where gradients are unscaled already) and found_inf, tensors of
    one number, around this one: grad is then multiplied by 1 / grad_scale as it is read and stays in .grad as it is;
    where found_inf is not 0 nothing changes, and a first update is still to come. No host waits for these numbers.

    A master is the weight for as long as its parameter is what was rounded from it. Where something else was written
    since (the model's `load_state_dict`, an optimizer whose state this one loads), the next update goes on from that:
    PyTorch's version counters tell, which `param.data` does not move and no CUDA graph or compiled step reads.

    Raises: ValueError or TypeError where a setting, parameter or gradient is not of these; nothing is updated then.
        RuntimeError where a CUDA graph captures a parameter's first update: every replay would begin its state anew.
    Source: Micikevicius et al. 2018, "Mixed precision training", section 3.1; torch.optim.SGD's rule.
    """

    _step_supports_amp_scaling = True  # GradScaler gives the scale to step; an instance's would be lost in a copy

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        master_weights: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "master_weights": master_weights,
        }
        _check_settings(defaults)
        self._written: dict[Tensor, int | None] = {}  # versions of parameters behind their last updates
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; they must be dense, of float32, bfloat16 or float16."""
        super().add_param_group(param_group)
        try:
            _check_settings(self.param_groups[-1])
            for param in self.param_groups[-1]["params"]:
                checks.dense("MasterSGD", "params", param)
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim.Optimizer's; torch.optim.SGD loads it too."""
        result = super().state_dict()
        result["state"] = {key: _present(state) for key, state in result["state"].items()}
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim.Optimizer's, torch.optim.SGD's too; masters and momenta keep their own dtype."""
        hook = self.register_load_state_dict_pre_hook(lambda _, given: _sealed(given))  # behind the hooks of others
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was loaded, unpickled or copied; settings that it lacks are this optimizer's own."""
        own = [dict(group) for group in getattr(self, "param_groups", [])]
        super().__setstate__(state)
        self._written = {}
        for i, group in enumerate(self.param_groups):
            for name in _SETTINGS:
                group.setdefault(name, (own[i] if own else self.defaults)[name])
            for param in group["params"]:
                values = self.state.get(param, {})
                for name, value in values.items():
                    if isinstance(value, _Sealed):
                        values[name] = value.open(name, param, group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        try:
            self._update_all()
        except BaseException:
            for name in ("grad_scale", "found_inf"):  # of the scaler's step, which does not come to its end
                vars(self).pop(name, None)
            raise
        return loss

    def _update_all(self) -> None:
        updates: dict[tuple[int, torch.device], list[Tensor]] = {}
        for i, group in enumerate(self.param_groups):
            for param in group["params"]:
                if param.grad is not None:
                    _check_gradient(param)
                    updates.setdefault((i, param.device), []).append(param)
        for i, _ in updates:
            _check_settings(self.param_groups[i])
        scaling = {device: self._scaling(device) for device in dict.fromkeys(device for _, device in updates)}
        for (i, device), params in updates.items():
            self._update(self.param_groups[i], params, *scaling[device])

    def _scaling(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """inv_scale and found_inf on a device, of what torch.amp.GradScaler set."""
        grad_scale = _scalar("grad_scale", getattr(self, "grad_scale", None), torch.float64, device)
        found_inf = _scalar("found_inf", getattr(self, "found_inf", None), torch.float32, device)
        return None if grad_scale is None else grad_scale.reciprocal().float(), found_inf

    def _update(
        self, group: dict[str, Any], params: list[Tensor], inv_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        states = [self._state(param, group) for param in params]
        pick(choose(params[0].device), "sgd_step_")(
            params,
            [param.grad for param in params],
            [state["master"] for state in states],
            [state["momentum_buffer"] for state in states],
            [state["step"] for state in states],
            _learning_rate(group["lr"], params[0].device),
            inv_scale,
            found_inf,
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
        )
        torch.autograd.graph.increment_version(params)
        if not torch.compiler.is_compiling():
            self._written.update((param, _version(param)) for param in params)

    def _state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The parameter's state; what is not there yet (or was loaded from torch.optim.SGD) is made."""
        state = self.state[param]
        if "step" not in state and param.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("MasterSGD: state: wanted an update before a CUDA graph captures one, got none")
        keep = group["master_weights"] and param.dtype != torch.float32
        if "master" not in state or keep != (state["master"].numel() > 0 and param.numel() > 0):
            state["master"] = param.detach().float() if keep else param.new_empty(0, dtype=torch.float32)
        elif keep and not torch.compiler.is_compiling() and self._written.get(param) != _version(param):
            master = state["master"]
            master.copy_(torch.where(master.to(param.dtype) == param, master, param.float()))
        buffer, momentum = state.get("momentum_buffer"), group["momentum"]
        updates = None if "step" in state else int(buffer is not None)
        if buffer is None or (momentum and buffer.numel() != param.numel()):
            dtype = _momentum_dtype(param, group)
            made = torch.zeros_like(param, dtype=dtype) if momentum else param.new_empty(0, dtype=dtype)
            state["momentum_buffer"] = made
            updates = 0 if momentum else updates  # the first with momentum is to come
        if updates is not None:
            state["step"] = torch.full((), updates, dtype=torch.int64, device=param.device)
        return state


def _check_settings(settings: dict[str, Any]) -> None:
    lr, momentum, dampening = settings["lr"], settings["momentum"], settings["dampening"]
    if isinstance(lr, Tensor) and (lr.numel() != 1 or not lr.is_floating_point()):
        got = f"{lr.dtype} of shape {tuple(lr.shape)}"
        raise ValueError(checks.wrong("MasterSGD", "lr", "a float or a floating-point tensor of one number", got))
    for name in ("momentum", "weight_decay") if isinstance(lr, Tensor) else ("lr", "momentum", "weight_decay"):
        value: Any = settings[name]
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise ValueError(checks.wrong("MasterSGD", name, "a finite number of at least 0", value))
    if not isinstance(dampening, Real) or not math.isfinite(dampening):
        raise ValueError(checks.wrong("MasterSGD", "dampening", "a finite number", dampening))
    if settings["nesterov"] and (momentum <= 0 or dampening != 0):
        got = f"{momentum} and {dampening}"
        raise ValueError(checks.wrong("MasterSGD", "nesterov", "momentum > 0 and no dampening", got))


def _check_gradient(param: Tensor) -> None:
    grad = param.grad
    assert grad is not None
    checks.dense("MasterSGD", "grad", grad)
    checks.like("MasterSGD", "grad", grad, param)


def _scalar(name: str, value: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """One number on a device, which the host does not wait for unless that is where it goes."""
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(checks.wrong("MasterSGD", name, "a tensor of one number, or None", got))
    return value.reshape(()).to(device, dtype, non_blocking=device.type != "cpu")


def _learning_rate(lr: float | Tensor, device: torch.device) -> Tensor:
    """A float32 on the device, or on the CPU where a launch takes it by value."""
    if not isinstance(lr, Tensor):
        return torch.tensor(lr, dtype=torch.float32, device="cpu")
    return lr.reshape(()).to(lr.device if lr.is_cpu else device, torch.float32)


def _version(param: Tensor) -> int | None:
    """How often something was written into it; None of an inference tensor, where nothing counts."""
    return None if param.is_inference() else param._version


@dataclass(frozen=True)
class _Sealed:
    """A tensor of a state on its way through torch.optim.Optimizer.load_state_dict, which would give it the parameter's
    dtype."""

    tensor: Tensor

    def open(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A copy on the parameter's device; name: in the parameter's state."""
        dtypes = {"master": torch.float32, "momentum_buffer": _momentum_dtype(param, group)}
        return self.tensor.detach().to(param.device, dtypes.get(name, self.tensor.dtype), copy=True)


def _sealed(state_dict: dict[str, Any]) -> dict[str, Any]:
    state = {
        index: {name: _Sealed(value) if isinstance(value, Tensor) else value for name, value in values.items()}
        for index, values in state_dict["state"].items()
    }
    return {**state_dict, "state": state}


def _momentum_dtype(param: Tensor, group: Mapping[str, Any]) -> torch.dtype:
    return torch.float32 if group["master_weights"] else param.dtype


def _present(state: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state without what is absent; a momentum before the first update is, to torch.optim.SGD."""
    absent = {name for name, value in state.items() if isinstance(value, Tensor) and value.numel() == 0}
    if "step" in state and int(state["step"]) == 0:
        absent.add("momentum_buffer")
    return {name: value for name, value in state.items() if name not in absent}
