"""Half precision (apex's O2) in bfloat16 against O2 written out in plain PyTorch: 20 updates, the same bits."""

import copy
from collections.abc import Iterable

import pytest
import torch
from test_steps import METHODS, UPDATES, make_model, run_ours, run_report
from torch import Tensor, nn

from freefast.precision import Precision
from freefast.training.state import TrainState

MASTERS = pytest.mark.parametrize("master_weights", [True, False], ids=["masters", "no masters"])


class O2(nn.Module):
    """Convolutions and linear layers in bfloat16, BatchNorm as it was; takes and gives float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.bfloat16()).float()


class HalfSgd:
    """SGD in float32, every product and every sum rounded on its own, one rounding into whatever keeps a result.

    With masters, float32 copies of the half weights are updated and copied back, and momentum is float32. Without, the
    half weights are; the step takes the momentum before it is rounded to their dtype.
    """

    def __init__(self, weights: Iterable[Tensor], master_weights: bool) -> None:
        self.weights = list(weights)
        self.masters = [weight.detach().float().clone() for weight in self.weights] if master_weights else None
        self.buffers: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, lr: float) -> None:
        old = [w.float() for w in self.weights] if self.masters is None else self.masters
        gradients = [w.grad.float() + 5e-4 * m for w, m in zip(self.weights, old, strict=True)]
        moved = gradients
        if self.buffers:
            moved = [0.9 * b.float() + g for b, g in zip(self.buffers, gradients, strict=True)]
        new = [m - lr * b for m, b in zip(old, moved, strict=True)]
        if self.masters is None:
            self.buffers = [b.to(w.dtype) for b, w in zip(moved, self.weights, strict=True)]
        else:
            self.masters, self.buffers = new, moved
        for weight, value in zip(self.weights, new, strict=True):
            weight.copy_(value)


def make_start(name: str, device: str) -> nn.Module:
    """A float32 model whose weights bfloat16 would round, BatchNorm's and its statistics too."""
    model = make_model(name, device)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data += 1 / 3
    return model


def record_inputs(model: nn.Module) -> list[Tensor]:
    """What the model is given from now on, batch after batch."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def kept(state: TrainState, name: str) -> list[Tensor]:
    """What the optimiser keeps under a name, weight after weight."""
    return [state.optimizer.state[weight][name] for weight in state.model.parameters()]


def assert_same(ours: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def check(name: str, method: str, master_weights: bool, device: str) -> None:
    """Weights, masters, momenta, BatchNorm's buffers, delta and all that the model saw have the plain loop's bits."""
    start = make_start(name, device)
    precision = Precision(name="half-bf16", master_weights=master_weights)
    model, plain = precision.prepare(copy.deepcopy(start)), O2(copy.deepcopy(start))
    update = HalfSgd(plain.parameters(), master_weights)
    seen, expected = record_inputs(model), record_inputs(plain.model)

    state = run_ours(method, model, device, precision)
    delta = run_report(method, plain, update, device)

    assert_same(seen, expected)
    assert list(model.state_dict()) == list(plain.model.state_dict())
    assert_same(model.state_dict().values(), plain.model.state_dict().values())
    assert_same(kept(state, "momentum_buffer"), update.buffers)
    if master_weights:
        halves = [index for index, weight in enumerate(update.weights) if weight.dtype == torch.bfloat16]
        masters = kept(state, "master")
        assert_same([masters[index] for index in halves], [update.masters[index] for index in halves])
    if method in ("free", "fast previous"):
        assert_same([state.delta], [delta])
        assert delta.any()


@MASTERS
@pytest.mark.parametrize("method", METHODS)
def test_same_bits_as_plain_o2(method: str, master_weights: bool, device: str, backend: str) -> None:
    check("small_cnn", method, master_weights, device)


def test_same_bits_in_a_residual_network(device: str) -> None:
    check("preactresnet18", "free", True, device)


@MASTERS
@pytest.mark.parametrize("method", ["free", "fast random"])
def test_loss_scale_changes_no_bit(method: str, master_weights: bool, device: str, backend: str) -> None:
    """A power of two moves exponents alone, and bfloat16 and float32 have range enough."""
    if device == "cuda":
        pytest.skip("torch's GradScaler takes no bfloat16 gradients on CUDA; float16 gradients may overflow")
    start = make_start("small_cnn", device)
    states = []
    for loss_scale in ("none", "dynamic"):
        precision = Precision(name="half-bf16", master_weights=master_weights, loss_scale=loss_scale)
        states.append(run_ours(method, precision.prepare(copy.deepcopy(start)), device, precision))
    plain, scaled = states

    assert scaled.scaler.get_scale() == 65536
    assert_same(scaled.model.state_dict().values(), plain.model.state_dict().values())
    for name in ("master", "momentum_buffer", "step"):
        assert_same(kept(scaled, name), kept(plain, name))
    assert all(count == UPDATES for count in kept(scaled, "step"))
    assert_same([scaled.delta], [plain.delta])
