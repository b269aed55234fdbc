"""Nothing in a step waits for the device or works on tensors that a graph would not find; and the guard would notice.

On the meta device no value can be read at all, and every copy between it and the host is seen.
"""

from collections.abc import Callable

import pytest
import torch
from graph_guard import GraphGuard, GraphUnsafeError
from steps import BATCH, METHODS, make_loader, make_state, make_step
from torch import Tensor, nn

import advkernels as ak
from advkernels import checks
from freefast import Precision, models
from freefast.data.device import DeviceBatches
from freefast.data.staged import StagedBatches
from freefast.training.captured import CapturedStep
from freefast.training.fast import fast_step
from freefast.training.standard import standard_step
from freefast.training.state import TrainState

SOURCES = {"device": DeviceBatches, "staged": StagedBatches}
POLICIES = [
    Precision(name="amp-bf16"),
    Precision(name="half-bf16", master_weights=False),
    Precision(name="half-fp16", loss_scale="dynamic"),
    Precision(name="half-fp16", loss_scale="1024"),
    Precision(name="amp-fp16", loss_scale="dynamic"),
]


def run_guarded(state: TrainState, step: Callable, source: str = "device") -> None:
    """Two batches as they come, which make what is made once, two under the guard, and the smaller last one."""
    batches = SOURCES[source](make_loader(), state.delta.device)
    captured = CapturedStep(state, step, batches, BATCH, "off")
    for number, count in enumerate(batches.epoch(0)):
        if number < 2:
            captured(count)
        else:
            with GraphGuard(lambda: captured.tensors):
                captured(count)
    assert count < BATCH


@pytest.mark.parametrize(
    ("method", "source"), [*((method, "device") for method in METHODS), ("free", "staged"), ("fast random", "staged")]
)
def test_steps_are_safe(
    method: str, source: str, backend: str, device: str, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "images", lambda *_: None)  # compares addresses in tensors of the host
    run_guarded(make_state(device), make_step(method), source)


@pytest.mark.parametrize("precision", POLICIES, ids=str)
def test_steps_are_safe_in_every_precision(precision: Precision, device: str, one_thread: None) -> None:
    run_guarded(make_state(device, precision), make_step("fast random"))


def small_network() -> nn.Module:
    """For the meta device, where PyTorch takes long for each layer."""
    return models.build("small_cnn", 10, 3, width=8)


def make_state_with_options(device: str, precision: Precision, model: nn.Module | None = None) -> TrainState:
    """Smoothed labels, averaged weights, images that are shrunk in the step."""
    state = make_state(device, precision, model, label_smoothing=0.1, weight_average=0.9)
    state.resize((8, 8))
    return state


@pytest.mark.parametrize("precision", [Precision(), Precision(name="half-fp16", loss_scale="dynamic")], ids=str)
@pytest.mark.parametrize("method", ["free", "fast random"])
def test_options_are_safe(method: str, precision: Precision, device: str, one_thread: None) -> None:
    run_guarded(make_state_with_options(device, precision), make_step(method))


@pytest.mark.parametrize("method", ["free", "fast random"])
def test_options_are_safe_where_no_value_can_be_read(method: str) -> None:
    with ak.backend("reference"):
        run_guarded(make_state_with_options("meta", Precision(name="half-bf16"), small_network()), make_step(method))


@pytest.mark.parametrize(
    ("method", "source", "precision"),
    [
        *((method, "device", Precision()) for method in METHODS),
        ("free", "device", Precision(name="half-bf16")),
        ("fast random", "staged", Precision(name="half-bf16")),
    ],
    ids=str,
)
def test_steps_are_safe_where_no_value_can_be_read(method: str, source: str, precision: Precision) -> None:
    with ak.backend("reference"):
        run_guarded(make_state("meta", precision, small_network()), make_step(method), source)


def waits_for_the_loss(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss, logits = standard_step(state, images, labels)
    assert loss.item() < 1e9
    return loss, logits


def selects_by_a_mask(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss, logits = standard_step(state, images, labels)
    logits[labels > 4]
    return loss, logits


def finds_indices(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    labels.nonzero()
    return standard_step(state, images, labels)


def brings_numbers(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return standard_step(state, images + torch.tensor([0.1, 0.2, 0.3], device=images.device).view(3, 1, 1), labels)


def adds_to_old_gradients(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss, logits = state.loss(images, labels)
    loss.backward()
    state.update()
    return loss.detach(), logits.detach()


def replaces_delta(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    result = fast_step(state, images, labels, alpha=0.1, delta_init="previous")
    state.delta = state.delta + 0
    return result


def moves_a_weight(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    weight = next(state.model.parameters())
    weight.data = weight.data.clone()
    return standard_step(state, images, labels)


def reads_a_tensor_of_its_own(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return standard_step(state, images * MINE.to(images.device) if images.is_cpu else images, labels)


MINE = torch.ones(3, 1, 1)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (waits_for_the_loss, "_local_scalar_dense.default: the host waits for the device"),
        (selects_by_a_mask, "the size of what a mask selects"),
        (finds_indices, "nonzero.default: the host waits"),
        (brings_numbers, "numbers from the host"),
        (adds_to_old_gradients, "neither static nor made inside"),
        (replaces_delta, "a static tensor was replaced"),
        (moves_a_weight, "a static tensor was replaced, moved"),
        (reads_a_tensor_of_its_own, r"\(3, 1, 1\) torch.float32 is neither static nor made inside"),
    ],
)
def test_the_guard_fails_on(step: Callable, message: str, one_thread: None) -> None:
    with pytest.raises(GraphUnsafeError, match=message):
        run_guarded(make_state("cpu"), step)


def comes_from_the_host(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return standard_step(state, images + torch.ones(3, 1, 1).to(images.device), labels)


def goes_to_the_host(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    torch.empty_like(labels, device="cpu").copy_(labels)
    return standard_step(state, images, labels)


def lists_labels(state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    labels.tolist()
    return standard_step(state, images, labels)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (comes_from_the_host, GraphUnsafeError, "a copy from the host"),
        (goes_to_the_host, NotImplementedError, "Cannot copy out of meta tensor"),
        (lists_labels, NotImplementedError, "Cannot copy out of meta tensor"),
    ],
)
def test_no_copy_to_or_from_the_host_gets_by(step: Callable, error: type[Exception], message: str) -> None:
    """The guard sees what comes; the meta device gives nothing away."""
    with ak.backend("reference"), pytest.raises(error, match=message):
        run_guarded(make_state("meta"), step)
