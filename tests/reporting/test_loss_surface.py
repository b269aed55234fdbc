"""The loss around samples, against the formula in float64, sample by sample and point by point."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freefast import Precision, ThreatModel, data
from freefast.models.small_cnn import small_cnn
from freefast.reporting import loss_surface
from freefast.reporting.loss_surface import LossSurface

THREAT = ThreatModel(epsilon=0.1, mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.5))


@pytest.fixture
def model(device, float32_convolutions):
    """Smooth, with statistics of its own in BatchNorm, in training mode."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Softplus(), nn.Flatten(), nn.Linear(80, 4)
    model = nn.Sequential(*layers)
    for _ in range(3):
        model(torch.randn(16, 3, 6, 6))
    return model.to(device)


@pytest.fixture
def samples(device):
    random = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 6, 6, generator=random).to(device), torch.tensor([2, 0, 3], device=device)


def loss_at(model, pixels, label):
    """pixels: (C, H, W) float64"""
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (THREAT.mean, THREAT.std))
    logits = model(((pixels - mean) / std)[None])
    return F.cross_entropy(logits, torch.tensor([label])), logits


def plain(model, images, labels, signs, points):
    """Losses and mistakes (N, P, P) and gradients at the images, in float64."""
    twin = copy.deepcopy(model).cpu().double().eval()
    losses, wrong, gradients = np.empty((len(images), points, points)), np.empty((len(images), points, points)), []
    for n, (image, label) in enumerate(zip(images.cpu().double(), labels.tolist(), strict=True)):
        leaf = image.clone().requires_grad_()
        loss_at(twin, leaf, label)[0].backward()
        gradients.append(leaf.grad)
        for i, a in enumerate(np.linspace(-0.1, 0.1, points)):
            for j, b in enumerate(np.linspace(-0.1, 0.1, points)):
                loss, logits = loss_at(twin, image + a * leaf.grad.sign() + b * signs[n], label)
                losses[n, i, j], wrong[n, i, j] = loss.item(), logits.argmax().item() != label
    return losses, wrong, torch.stack(gradients)


@pytest.mark.parametrize("batch", [7, 1000])  # smaller than a line of the grid, and no divisor of it; larger than all
def test_losses_are_those_of_two_loops(model, samples, batch, monkeypatch):
    images, labels = samples
    monkeypatch.setattr(loss_surface, "_BATCH_SIZE", batch)
    found = loss_surface.measure(model, images, labels, THREAT, points=5, seed=3)
    signs = loss_surface.rademacher(images.shape, 3)
    losses, wrong, gradients = plain(model, images, labels, signs.double(), 5)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4, atol=1e-5)  # float32's rounding of sums of 100 terms
    np.testing.assert_array_equal(found.wrong, wrong)
    np.testing.assert_allclose(found.mean, losses.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.offsets, np.linspace(-0.1, 0.1, 5), atol=1e-8)
    slopes = [gradients.abs().sum((1, 2, 3)), (gradients * signs).sum((1, 2, 3))]
    np.testing.assert_allclose(found.slopes.T, torch.stack(slopes), rtol=1e-3, atol=1e-4)
    assert 0 < wrong.mean() < 1


def test_in_the_middle_is_the_clean_loss(model, samples):
    images, labels = samples
    found = loss_surface.measure(model, images, labels, THREAT, points=3)
    twin = copy.deepcopy(model).cpu().double().eval()
    clean = [loss_at(twin, images[n].cpu().double(), int(labels[n]))[0].item() for n in range(3)]
    assert found.offsets[1] == 0
    np.testing.assert_allclose(found.losses[:, 1, 1], clean, rtol=1e-5)


@pytest.mark.parametrize("name", ["half-bf16", "half-fp16"])
def test_half_precision_keeps_the_slopes(model, samples, name):
    """float16's attacks scale the loss, which must not be seen; 8 bits of a mantissa leave a hundredth or two."""
    images, labels = samples
    precision = Precision(name=name)
    half = precision.prepare(copy.deepcopy(model))
    exact = loss_surface.measure(model, images, labels, THREAT, points=3)
    found = loss_surface.measure(half, images, labels, THREAT, points=3, precision=precision)
    np.testing.assert_allclose(found.slopes[:, 0], exact.slopes[:, 0], rtol=0.05)
    np.testing.assert_allclose(found.losses[:, 1, 1], exact.losses[:, 1, 1], rtol=0.05, atol=0.01)


def test_the_numbers_of_a_surface():
    """Two samples on a grid of five: what lies outside |a| + |b| <= epsilon does not count."""
    offsets = torch.linspace(-0.2, 0.2, 5)
    losses, wrong = torch.rand(2, 5, 5), torch.zeros(2, 5, 5, dtype=torch.bool)
    slopes = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    wrong[0, 0, 0] = wrong[1, 4, 2] = True
    surface = LossSurface(offsets=offsets, losses=losses, wrong=wrong, slopes=slopes)
    far = [0.0, 0.0]
    for i in range(5):
        for j in range(5):
            inside = abs(i - 2) + abs(j - 2) <= 2
            assert surface.in_ball[i, j] == inside
            for n in range(2):
                plane = losses[n, 2, 2] + slopes[n, 0] * offsets[i] + slopes[n, 1] * offsets[j]
                far[n] = max(far[n], abs(losses[n, i, j] - plane).item() if inside else 0.0)
    assert surface.nonlinearity == pytest.approx(sum(far) / 2, rel=1e-5)
    assert surface.misclassified == 0.5


def test_the_loss_of_a_straight_slope_has_no_nonlinearity():
    """Of two classes, far on the wrong side, cross-entropy is the difference of the logits but for exp(-50)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0] * 4]))
        model[1].bias.copy_(torch.tensor([50.0, 0.0]))
    found = loss_surface.measure(model, torch.rand(2, 1, 2, 2), torch.tensor([1, 1]), ThreatModel(epsilon=0.1))
    assert found.nonlinearity < 1e-4
    np.testing.assert_allclose(found.slopes[:, 0], 6.5, rtol=1e-5)
    assert found.misclassified == 1


def test_signs_are_random_and_the_same_for_the_same_seed():
    signs = loss_surface.rademacher((100, 100), 0)
    assert set(signs.unique().tolist()) == {-1, 1}
    assert abs(signs.mean()) < 0.05  # five standard deviations
    assert torch.equal(signs, loss_surface.rademacher((100, 100), 0))
    assert not torch.equal(signs, loss_surface.rademacher((100, 100), 1))


def test_the_model_is_left_as_it_was(model, samples):
    images, labels = samples
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        loss_surface.measure(model, images, labels, THREAT, points=3)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [layer.training for layer in model] == [True, False, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_loss_rises_along_the_gradient_more_than_along_random_signs(one_thread):
    """A standard model of digits, over 100 test images; the chance of a random direction is far below one in 100."""
    digits = data.load("digits")
    threat = ThreatModel(epsilon=0.2, mean=digits.mean, std=digits.std)
    torch.manual_seed(0)
    model = small_cnn(num_classes=10, width=8)
    x = threat.normalize(digits.train.images.float() / 255)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(150):
        index = torch.arange(step * 64, step * 64 + 64) % len(x)
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), digits.train.labels[index]).backward()
        optimizer.step()
    found = loss_surface.measure(
        model, digits.test.images[:100].float() / 255, digits.test.labels[:100], threat, points=5
    )
    assert (found.wrong[:, 2, 2]).float().mean() < 0.1  # it has learned
    along, across = found.losses[:, 4, 2], found.losses[:, 2, 4]
    assert along.mean() > 5 * across.mean()
    assert (along > across).float().mean() > 0.95
    assert found.losses[:, 0, 2].mean() < along.mean()


@pytest.mark.parametrize(
    ("images", "labels", "points", "named"),
    [
        ((0, 3, 6, 6), 0, 5, "images"),
        ((3, 6, 6), 3, 5, "images"),
        ((2, 3, 6, 6), 3, 5, "labels"),
        ((2, 3, 6, 6), 2, 4, "points"),
        ((2, 3, 6, 6), 2, 1, "points"),
    ],
)
def test_what_does_not_fit_is_named(images, labels, points, named):
    with pytest.raises(ValueError, match=f"loss_surface: {named}: wanted"):
        loss_surface.measure(
            nn.Flatten(), torch.zeros(images), torch.zeros(labels, dtype=torch.int64), THREAT, points=points
        )
