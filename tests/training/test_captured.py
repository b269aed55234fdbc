"""Steps that read their batch on the device, on CUDA as one graph, against the plain loop: the same bits."""

import copy
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from steps import (
    BATCH,
    METHODS,
    SIZE,
    UPDATES,
    assert_same,
    epochs_of,
    make_loader,
    make_state,
    make_step,
    train_plainly,
)

from freefast import Precision, models
from freefast.data.device import DeviceBatches
from freefast.data.staged import StagedBatches
from freefast.precision import PRECISIONS
from freefast.training import checkpoint
from freefast.training.captured import CapturedStep
from freefast.training.state import TrainState

SOURCES = {"device": DeviceBatches, "staged": StagedBatches}
POLICIES = [
    *(Precision(name=name) for name in PRECISIONS if name != "fp32"),
    Precision(name="half-bf16", master_weights=False),
    Precision(name="half-fp16", loss_scale="dynamic"),
    Precision(name="half-fp16", loss_scale="1024", master_weights=False),
    Precision(name="amp-fp16", loss_scale="dynamic"),
]


@pytest.fixture(autouse=True)
def steady(one_thread: None, deterministic_cudnn: None) -> None:
    """The same convolution algorithms on both sides."""


def make_captured(state: TrainState, method: str, source: str = "device") -> CapturedStep:
    batches = SOURCES[source](make_loader(), state.delta.device)
    return CapturedStep(state, make_step(method), batches, BATCH)


def train(step: CapturedStep, epochs: Iterable[int]) -> list[list]:
    """Train, and between epochs look at the model in eval mode.

    Returns: loss sum, hits and the gradients' health, epoch by epoch
    """
    sums = []
    for epoch in epochs:
        step.begin_epoch()
        for count in step._batches.epoch(epoch):
            step(count)
        sums.append([*step.sums.tolist(), step._state.health.take()])
        model, delta = step._state.model, step._state.delta
        with torch.no_grad():
            step._state.precision.logits(model.eval(), delta)
        model.train()
    assert step.is_captured == (delta.is_cuda and step._stream is not None)
    return sums


@pytest.mark.parametrize(
    ("method", "source"), [*((method, "device") for method in METHODS), ("free", "staged"), ("fast random", "staged")]
)
def test_same_bits_as_the_plain_loop(method: str, source: str, device: str, backend: str) -> None:
    state, plain = make_state(device), make_state(device)
    epochs = range(epochs_of(method))
    sums = train(make_captured(state, method, source), epochs)
    expected = train_plainly(plain, make_step(method), epochs)

    assert sums == expected
    assert_same(state.tensors, plain.tensors)
    assert state.updates == UPDATES
    if method in ("fast random", "pgd"):
        assert state.rng.draw == UPDATES  # every replay drew numbers of its own
    if method in ("free", "fast previous"):
        assert state.delta.any()


@pytest.mark.parametrize(
    ("method", "precision"), [*zip(["free", "fast random"] * len(POLICIES), POLICIES, strict=False)], ids=str
)
def test_same_bits_in_every_precision(method: str, precision: Precision, device: str) -> None:
    state, plain = make_state(device, precision), make_state(device, precision)
    epochs = range(epochs_of(method))
    sums = train(make_captured(state, method), epochs)
    assert sums == train_plainly(plain, make_step(method), epochs)
    assert_same(state.tensors, plain.tensors)


@pytest.mark.parametrize("precision", [Precision(), POLICIES[-3]], ids=str)
@pytest.mark.parametrize("method", ["free", "fast random"])
def test_same_bits_with_smoothed_labels_and_averaged_weights(method: str, precision: Precision, device: str) -> None:
    options = {"label_smoothing": 0.1, "weight_average": 0.9}
    state, plain = (make_state(device, precision, **options) for _ in range(2))
    epochs = range(epochs_of(method))
    sums = train(make_captured(state, method), epochs)
    assert sums == train_plainly(plain, make_step(method), epochs)
    assert_same(state.tensors, plain.tensors)
    assert_same(state.final_model().state_dict().values(), plain.final_model().state_dict().values())


@pytest.mark.parametrize("method", ["free", "fast random", "fast previous"])
def test_same_bits_on_images_of_several_sizes(method: str, device: str) -> None:
    """On CUDA a graph a size."""
    state, plain = (make_state(device, weight_average=0.9) for _ in range(2))
    captured, step = make_captured(state, method), make_step(method)

    def shrunk(state: TrainState, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = F.interpolate(images, size=(8, 8), mode="bilinear", antialias=True)
        return step(state, images.contiguous(memory_format=torch.channels_last), labels)

    for epoch, size in enumerate((8, SIZE)):
        for one in (state, plain):
            one.resize((size, size))
            assert not one.delta.any()
        sums = train(captured, [epoch])
        assert sums == train_plainly(plain, shrunk if size < SIZE else step, [epoch])
        assert state.delta.shape[2:] == (size, size)
        assert_same(state.tensors, plain.tensors)


def test_same_bits_compiled(device: str) -> None:
    """Both sides by one compiler, which rounds otherwise than none."""
    backend = "inductor" if device == "cuda" else "aot_eager"
    network = models.build("small_cnn", 10, 3, width=8)
    state, plain = (make_state(device, model=copy.deepcopy(network), weight_average=0.9) for _ in range(2))
    for one in (state, plain):
        one.compiled = torch.compile(one.model, dynamic=False, backend=backend)
    sums = train(make_captured(state, "fast random"), range(2))
    assert sums == train_plainly(plain, make_step("fast random"), range(2))
    assert_same(state.tensors, plain.tensors)


def test_off_means_op_by_op(device: str) -> None:
    state = make_state(device)
    batches = DeviceBatches(make_loader(), state.delta.device)
    step = CapturedStep(state, make_step("fast random"), batches, BATCH, "off")
    train(step, range(3))
    assert not step.is_captured


@pytest.mark.parametrize("method", ["free", "fast random"])
def test_a_checkpoint_goes_on_to_the_same_bits(method: str, device: str) -> None:
    """In a fresh state, and in the state whose graph is there already."""
    precision = Precision(name="half-fp16", loss_scale="dynamic")
    state, fresh = (make_state(device, precision, weight_average=0.9) for _ in range(2))
    step = make_captured(state, method)
    train(step, [0])
    content = copy.deepcopy(checkpoint.capture(state, 1))
    wanted = train(step, [1]), [tensor.clone() for tensor in state.tensors]

    for other in (step, make_captured(fresh, method)):
        checkpoint.restore(other._state, content, Path("checkpoint.pt"))
        assert train(other, [1]) == wanted[0]
        assert_same(other._state.tensors, wanted[1])


def test_an_overflow_leaves_the_weights_alone_and_halves_the_scale(device: str) -> None:
    state = make_state(device, Precision(name="half-fp16", loss_scale="dynamic"))
    step = make_captured(state, "fast random")
    train(step, range(2))  # on CUDA captured from here on
    sizes = step._batches.epoch(2)

    def weights() -> list[torch.Tensor]:
        return [weight.detach().clone() for weight in state.model.parameters()]

    before, updates = weights(), state.updates
    state.scaler.update(2.0**40)
    step(next(sizes))
    assert_same(weights(), before)
    assert (state.updates, state.scaler.get_scale()) == (updates, 2.0**39)
    state.scaler.update(2.0**10)
    step(next(sizes))
    assert not any(map(torch.equal, weights(), before))
    assert (state.updates, state.scaler.get_scale()) == (updates + 1, 2.0**10)


def test_what_a_step_keeps_stays_where_it_is(device: str) -> None:
    """Momenta and the loss scale are there after the first updates; from then on nothing moves."""
    state = make_state(device, Precision(name="half-fp16", loss_scale="dynamic"))
    step = make_captured(state, "free")
    train(step, [0])
    before = [(id(tensor), tensor.data_ptr()) for tensor in step.tensors]
    train(step, [1])
    assert [(id(tensor), tensor.data_ptr()) for tensor in step.tensors] == before


@pytest.mark.gpu
def test_a_graph_whose_tensors_have_moved_is_captured_again() -> None:
    state = make_state("cuda")
    step = make_captured(state, "fast random")
    train(step, [0])
    assert step.is_captured
    step.begin_epoch()
    assert step.is_captured
    state.optimizer.load_state_dict(copy.deepcopy(state.optimizer.state_dict()))
    state.scheduler.load_state_dict(state.scheduler.state_dict())
    step.begin_epoch()
    assert not step.is_captured


REFUSED = """
import torch, warnings
from steps import BATCH, assert_same, make_loader, make_state, make_step, train_plainly
from freefast.data.device import DeviceBatches
from freefast.training.captured import CapturedStep, GraphWarning

torch.backends.cudnn.deterministic = True
state, plain = make_state("cuda"), make_state("cuda")
for one in (state, plain):
    one.model.register_forward_hook(lambda module, inputs, logits: logits * float(logits.sum().item() < 1e9))
step = CapturedStep(state, make_step("fast random"), DeviceBatches(make_loader(), state.delta.device), BATCH)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for count in step._batches.epoch(0):
        step(count)
assert not step.is_captured
said = [str(one.message)[:34] for one in caught if one.category is GraphWarning]
assert said == ["graph: the capture was refused: CU"], caught
state.health.take()
train_plainly(plain, make_step("fast random"), [0])
assert_same(state.tensors, plain.tensors)
"""


@pytest.mark.gpu
def test_a_refused_capture_says_so_and_the_run_goes_on() -> None:
    """In a process of its own: a broken capture may leave CUDA in any state."""
    folder = Path(__file__).parent
    subprocess.run([sys.executable, "-c", REFUSED], cwd=folder, check=True, timeout=300)
