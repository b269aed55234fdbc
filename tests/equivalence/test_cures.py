"""N-FGSM and GradAlign against their papers written in plain PyTorch."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from report_loops import Sgd, Threat, clamp, learn, uniform
from test_steps import ALPHA, BATCH, EPSILON, LR, SEED, UPDATES, distance, make_batches, make_model, rates
from torch import Tensor, nn

import advkernels as ak
from freefast import Precision, ThreatModel
from freefast.data import CIFAR10_MEAN, CIFAR10_STD
from freefast.training import schedules
from freefast.training.captured import Step
from freefast.training.fast import fast_step
from freefast.training.grad_align import misalignment
from freefast.training.state import TrainState


def make_state(model: nn.Module, device: str) -> TrainState:
    optimizer = ak.MasterSGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=schedules.build("cyclic", optimizer, UPDATES),
        threat=ThreatModel(epsilon=EPSILON, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        rng=ak.PhiloxState(SEED, device),
        delta=torch.zeros(BATCH, 3, 12, 12, device=device),
    )


def train(state: TrainState, step: Step, device: str) -> None:
    for images, labels in make_batches(UPDATES, device):
        step(state, images, labels)


def train_noisily(
    model: nn.Module, update: Sgd, device: str, *, alpha: float, magnitude: float, clip: bool
) -> list[Tensor]:
    """Algorithm 1 of de Jorge et al. 2022: noise in k balls, a step, only the box to keep to.

    Returns: the perturbations
    """
    threat, deltas = Threat(EPSILON, CIFAR10_MEAN, CIFAR10_STD, device), []
    for draw, ((x, y), lr) in enumerate(zip(make_batches(UPDATES, device), rates(), strict=True)):
        u = torch.from_numpy(uniform(x.numel(), SEED, draw)).view(x.shape).to(device)
        radius = threat.size(magnitude * EPSILON)
        eta = clamp(u * (2 * radius) - radius, threat.lower - x, threat.upper - x).requires_grad_()
        F.cross_entropy(model(x + eta), y).backward()
        delta = eta.detach() + threat.size(alpha) * torch.sign(eta.grad)
        if clip:
            delta = clamp(delta, -threat.epsilon, threat.epsilon)
        delta = clamp(delta, threat.lower - x, threat.upper - x)
        learn(model, x + delta, y, update, lr)
        deltas.append(delta)
    return deltas


@pytest.mark.parametrize(
    ("alpha", "magnitude", "clip"), [(EPSILON, 2.0, False), (ALPHA, 0.5, True), (ALPHA, 1.0, False)], ids=str
)
def test_noise_and_no_clip_have_the_papers_bits(
    alpha: float, magnitude: float, clip: bool, device: str, backend: str
) -> None:
    model = make_model("preactresnet18", device)
    plain = copy.deepcopy(model)
    update = Sgd(plain.parameters())
    state = make_state(model, device)
    step = partial(fast_step, alpha=alpha, delta_init="random", noise_magnitude=magnitude, clip=clip)
    train(state, step, device)
    deltas = train_noisily(plain, update, device, alpha=alpha, magnitude=magnitude, clip=clip)

    largest = max((delta.abs().amax((0, 2, 3)) * torch.tensor(CIFAR10_STD, device=device)).max() for delta in deltas)
    assert largest <= EPSILON * 1.00001 if clip else largest > 1.5 * EPSILON
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for parameter, momentum in zip(model.parameters(), update.buffers, strict=True):
        assert torch.equal(state.optimizer.state[parameter]["momentum_buffer"], momentum)


def noise(x: Tensor, threat: Threat) -> Tensor:
    """float64 images, each pixel moved by up to epsilon, out of the box too."""
    u = torch.from_numpy(uniform(x.numel(), SEED, 0)).view(x.shape).to(x.device)
    moved = (x + (u * (2 * threat.epsilon) - threat.epsilon)).double()
    assert bool(((moved < threat.lower) | (moved > threat.upper)).any())
    return moved


def plain_misalignment(model: nn.Module, x: Tensor, noisy: Tensor, y: Tensor) -> Tensor:
    """Equation 5 of Andriushchenko and Flammarion 2020 by PyTorch's own cosine."""
    gradients = []
    for images in (x, noisy):
        images = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(F.cross_entropy(model(images), y), images, create_graph=True)[0])
    return (1 - F.cosine_similarity(gradients[0].flatten(1), gradients[1].flatten(1))).mean()


@pytest.mark.parametrize("name", ["small_cnn", "preactresnet18"])
def test_grad_align_has_the_papers_gradient(name: str, device: str, backend: str) -> None:
    """An update with an attack of no step, where loss and penalty see the images alone, against float64."""
    weight = 0.7
    model = make_model(name, device)
    start, exact, without = copy.deepcopy(model), copy.deepcopy(model).double(), copy.deepcopy(model)
    (x, y), threat = make_batches(1, device)[0], Threat(EPSILON, CIFAR10_MEAN, CIFAR10_STD, device)
    step = partial(fast_step, alpha=0.0, delta_init="zero")
    for trained, penalty in ((model, weight), (without, 0.0)):
        state = make_state(trained, device)
        state.scheduler.step()  # the first learning rate is 0
        step(state, x, y, grad_align=penalty)
    noisy = noise(x, threat)
    with ak.backend("reference"):
        loss = F.cross_entropy(exact(x.double()), y) + weight * plain_misalignment(exact, x.double(), noisy, y)
        loss.backward()
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter -= rates()[1] * (parameter.grad + 5e-4 * parameter)

    way = distance(exact, start)
    assert distance(exact, without) > 0.1 * way  # the penalty's own part
    assert distance(exact, model) < 1e-4 * way
    # float32 rounds each product at 6e-8; the batches' BatchNorm divides by small deviations


def test_misalignment_is_the_papers_number(device: str, backend: str) -> None:
    state = make_state(make_model("preactresnet18", device), device)
    (x, y), threat = make_batches(1, device)[0], Threat(EPSILON, CIFAR10_MEAN, CIFAR10_STD, device)
    ours = misalignment(state, x, y)
    exact = plain_misalignment(make_model("preactresnet18", device).double(), x.double(), noise(x, threat), y)
    assert 0 < ours < 2
    assert ours.item() == pytest.approx(exact.item(), rel=1e-4)


class Linear(nn.Module):
    """Logits that are linear in the image, and do not depend on one whose first pixel is negative."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 4 * 9, device=device).view(4, 9))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.where(flat[:, :1] > 0, flat, 0 * flat) @ self.weight.T


def test_a_sample_without_a_gradient_is_left_out(device: str) -> None:
    model = Linear(device)
    state = make_state(model, device)
    state.threat = ThreatModel(epsilon=0.01)
    images = torch.rand(6, 1, 3, 3, device=device) * 0.5 + 0.25
    labels = torch.arange(6, device=device) % 4
    penalty = misalignment(state, torch.cat([images, -images]), torch.cat([labels, labels]))
    alone = misalignment(state, -images, labels)
    assert penalty.item() == pytest.approx(0, abs=1e-3)  # the gradient turns with the softmax alone
    assert alone == 0
    (penalty + alone).backward()
    assert model.weight.grad.isfinite().all()


def test_float16_has_the_penaltys_gradient(device: str) -> None:
    """The scale of float16's attacks would overflow in the second derivative."""
    x = torch.rand(32, 3, 12, 12, device=device)
    y = torch.arange(32, device=device) % 10
    gradients = []
    for precision in (Precision(), Precision(name="half-fp16")):
        state = make_state(precision.prepare(make_model("preactresnet18", device)), device)
        state.precision = precision
        misalignment(state, x, y).backward()
        gradients.append(torch.cat([p.grad.double().flatten() for p in state.model.parameters() if p.grad is not None]))
    exact, half = gradients
    assert half.isfinite().all()
    assert torch.nn.functional.cosine_similarity(exact, half, dim=0) > 0.95
