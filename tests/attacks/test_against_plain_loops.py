"""PGD and FGSM against loops in plain PyTorch, bit for bit, and against torchattacks."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast import models
from freefast.attacks import FGSM, PGD, Attack
from freefast.data import CIFAR10_MEAN, CIFAR10_STD

EPSILON, ALPHA = 8 / 255, 2 / 255
Start = Callable[[], Tensor]


@pytest.fixture
def model(device: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build("small_cnn", 5, 3, width=4).to(device).eval()


@pytest.fixture
def batch(device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = (torch.rand(12, 3, 8, 8, generator=generator) * 1.2 - 0.1).clamp(0, 1)
    return images.to(device), torch.randint(0, 5, (12,), generator=generator).to(device)


def units(mean: tuple[float, ...], std: tuple[float, ...], device: str) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean, device=device).view(-1, 1, 1), torch.tensor(std, device=device).view(-1, 1, 1)


def clamp(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.max(torch.min(x, upper), lower)


def report_pgd(
    model: nn.Module, x: Tensor, y: Tensor, mean: Tensor, std: Tensor, start: Start, steps: int, restarts: int
) -> Tensor:
    """The evaluation of the report's code: the samples still classified rightly are picked out and moved."""
    epsilon, alpha, lower, upper = EPSILON / std, ALPHA / std, (0 - mean) / std, (1 - mean) / std
    max_loss, max_delta = torch.zeros(len(y), device=x.device), torch.zeros_like(x)
    for _ in range(restarts):
        delta = start().requires_grad_()
        for _ in range(steps):
            output = model(x + delta)
            index = torch.where(output.max(1)[1] == y)[0]
            if len(index) == 0:
                break
            (gradient,) = torch.autograd.grad(F.cross_entropy(output, y), delta)
            moved = clamp(delta.data[index] + alpha * torch.sign(gradient[index]), -epsilon, epsilon)
            delta.data[index] = clamp(moved, lower - x[index], upper - x[index])
        loss = F.cross_entropy(model(x + delta), y, reduction="none").detach()
        better = loss >= max_loss
        max_delta[better] = delta.detach()[better]
        max_loss = torch.max(max_loss, loss)
    return max_delta


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("normalised", [False, True])
def test_pgd_is_the_reports(model: nn.Module, batch: tuple, normalised: bool, restarts: int, device: str) -> None:
    images, labels = batch
    mean_std = (CIFAR10_MEAN, CIFAR10_STD) if normalised else ((0.0,) * 3, (1.0,) * 3)
    mean, std = units(*mean_std, device)
    x = (images - mean) / std
    noise = ak.PhiloxState(5, device)

    def start() -> Tensor:
        return ak.uniform_init(x, EPSILON / std, (0 - mean) / std, (1 - mean) / std, rng=noise)

    delta = report_pgd(model, x, labels, mean, std, start, 7, restarts)
    given = {"mean": mean_std[0], "std": mean_std[1]} if normalised else {}
    attack = PGD(model, eps=EPSILON, alpha=ALPHA, steps=7, restarts=restarts, rng=5, **given)

    adversarial = attack(images, labels)

    assert torch.equal(adversarial, ((x + delta) * std + mean).clamp(0, 1))
    fooled = (model(x).argmax(1) != labels).float().mean()
    assert 0 < fooled < 1  # of the samples some move and some do not
    assert not torch.equal(adversarial, images)


def test_fgsm_is_one_sign_step(model: nn.Module, batch: tuple) -> None:
    images, labels = batch
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    assert torch.equal(FGSM(model, eps=0.1)(images, labels), (images + 0.1 * gradient.sign()).clamp(0, 1))
    stepped = (images + 0.03 * gradient.sign()).clamp(0, 1)
    assert torch.equal(FGSM(model, eps=0.1, alpha=0.03)(images, labels), stepped)


def test_fgsm_may_start_at_random(model: nn.Module, batch: tuple, device: str) -> None:
    images, labels = batch
    delta = ak.uniform_init(images, 0.1, rng=ak.PhiloxState(3, device))
    x = (images + delta).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    delta = (delta + 0.125 * gradient.sign()).clamp(-0.1, 0.1)
    delta = clamp(delta, -images, 1 - images)
    attack = FGSM(model, eps=0.1, alpha=0.125, random_start=True, rng=3)
    assert torch.equal(attack(images, labels), images + delta)


@pytest.mark.parametrize("name", ["FGSM", "PGD"])
def test_torchattacks_gives_the_same_images(model: nn.Module, batch: tuple, name: str) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    images, labels = batch
    settings = {} if name == "FGSM" else {"alpha": ALPHA, "steps": 5, "random_start": False}
    theirs = getattr(torchattacks, name)(model, eps=EPSILON, **settings)(images, labels)
    own = {} if name == "FGSM" else {"stop_when_fooled": False}
    ours: Attack = {"FGSM": FGSM, "PGD": PGD}[name](model, eps=EPSILON, **settings, **own)
    # they round x + delta - x at every step: apart from a flipped sign or two the images agree to that
    far = (ours(images, labels) - theirs).abs() > 1e-6
    assert far.float().mean() < 0.01
