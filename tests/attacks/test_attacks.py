"""What every attack keeps: the ball, the box, its inputs and the model."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import FGSM, PGD
from freefast.data import CIFAR10_MEAN, CIFAR10_STD


class Net(nn.Module):
    """A linear classifier behind BatchNorm and Dropout that raises at one of its calls."""

    def __init__(self, raise_at: int = -1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 4))
        self.calls, self.raise_at = 0, raise_at

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.raise_at:
            raise RuntimeError("out of order")
        return self.layers(x)


def batch(device: str, samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(samples, 3, 4, 4, generator=generator)
    return images.to(device), torch.randint(0, 4, (samples,), generator=generator).to(device)


@settings(max_examples=25, deadline=None)
@given(
    eps=st.floats(0, 1),
    alpha=st.floats(0, 2),
    steps=st.integers(0, 4),
    random_start=st.booleans(),
    normalised=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_pgd_stays_in_ball_and_box(
    eps: float, alpha: float, steps: int, random_start: bool, normalised: bool, seed: int
) -> None:
    images, labels = batch("cpu")
    given = {"mean": CIFAR10_MEAN, "std": CIFAR10_STD} if normalised else {}
    attack = PGD(Net(), eps=eps, alpha=alpha, steps=steps, random_start=random_start, rng=seed, **given)
    adversarial = attack(images, labels)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= eps + 1e-6


def test_an_eval_that_raises_leaves_the_modes() -> None:
    class Broken(Net):
        def eval(self) -> "Broken":
            self.layers[0].eval()
            raise RuntimeError("out of order")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="out of order"):
        PGD(model)(*batch("cpu"))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("raise_at", [-1, 1, 3])
def test_the_model_is_left_as_it_was(raise_at: int, device: str) -> None:
    model = Net(raise_at).to(device).train()
    norm, dropout, _, linear = model.layers
    dropout.eval()
    linear.bias.requires_grad_(False)
    linear.weight.grad = torch.ones_like(linear.weight)
    gradient = linear.weight.grad
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    attack = PGD(model, eps=0.1, alpha=0.02, steps=5, restarts=2, stop_when_fooled=False)
    if raise_at > 0:
        with pytest.raises(RuntimeError, match="out of order"):
            attack(*batch(device))
    else:
        attack(*batch(device))

    assert [module.training for module in (model, model.layers, norm, dropout, linear)] == [
        True, True, True, False, True,
    ]  # fmt: skip
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert linear.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert norm.weight.grad is None
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, True, False]


def test_it_attacks_in_eval_mode(device: str) -> None:
    model = Net().to(device)
    images, labels = batch(device)
    in_train = FGSM(model.train(), eps=0.1)(images, labels)
    assert torch.equal(in_train, FGSM(model.eval(), eps=0.1)(images, labels))


def test_inputs_are_not_written(device: str) -> None:
    images, labels = batch(device)
    images.requires_grad_()
    copies = images.detach().clone(), labels.clone()
    adversarial = PGD(Net().to(device), eps=0.2)(images, labels)
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])
    assert images.grad is None
    assert not adversarial.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_where_gradients_are_off(mode: type, device: str) -> None:
    model = Net().to(device)
    images, labels = batch(device)
    wanted = PGD(model, eps=0.1)(images, labels)
    with mode():
        got = PGD(model, eps=0.1)(images.clone(), labels.clone())
    assert torch.equal(got, wanted)


def test_a_fooled_sample_stops(device: str) -> None:
    model = Net().to(device).eval()
    images, _ = batch(device, 32)
    labels = model(images).argmax(1)
    labels[::2] = (labels[::2] + 1) % 4
    wrong = torch.arange(32, device=device) % 2 == 0

    def moved(**rule: bool) -> Tensor:
        adversarial = PGD(model, eps=0.2, alpha=0.05, steps=6, random_start=False, **rule)(images, labels)
        return (adversarial != images).flatten(1).any(1)

    assert torch.equal(moved(), ~wrong)
    assert moved(stop_when_fooled=False).all()


def test_restarts_keep_the_larger_loss(device: str) -> None:
    model = Net().to(device).eval()
    images, labels = batch(device, 32)
    shared = ak.PhiloxState(9, device)
    once = PGD(model, eps=0.1, alpha=0.01, steps=2, rng=shared)
    losses = torch.stack([loss_of(model, once(images, labels), labels) for _ in range(3)])
    many = PGD(model, eps=0.1, alpha=0.01, steps=2, restarts=3, rng=9)
    assert torch.equal(loss_of(model, many(images, labels), labels), losses.amax(0))
    assert len(set(losses.argmax(0).tolist())) == 3  # every run is some sample's best


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(images), labels, reduction="none")


def test_random_starts_differ_from_call_to_call_and_repeat_by_seed(device: str) -> None:
    images, labels = batch(device)
    model = Net().to(device)
    first, second = (PGD(model, eps=0.1, steps=0, rng=4) for _ in range(2))
    one, two = first(images, labels), first(images, labels)
    assert not torch.equal(one, two)
    assert torch.equal(one, second(images, labels))
    assert torch.equal(two, second(images, labels))


def test_no_images_are_no_trouble(device: str) -> None:
    images, labels = batch(device, 0)
    assert PGD(Net().to(device))(images, labels).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda images, labels: (images * 2, labels), ValueError, "images: wanted pixels in \\[0, 1\\]"),
        (lambda images, labels: (images - 0.5, labels), ValueError, "images: wanted pixels in \\[0, 1\\]"),
        (lambda images, labels: (images * float("nan"), labels), ValueError, "images: wanted pixels"),
        (lambda images, labels: (images.double(), labels), TypeError, "images: wanted float32"),
        (lambda images, labels: ((images * 255).byte(), labels), TypeError, "images: wanted float32"),
        (lambda images, labels: (images[0], labels), ValueError, "images: wanted \\(N, C, H, W\\)"),
        (lambda images, labels: (images, labels[1:]), ValueError, "labels: wanted shape \\(8,\\)"),
        (lambda images, labels: (images, labels[:, None]), ValueError, "labels: wanted shape"),
        (lambda images, labels: (images, labels.int()), TypeError, "labels: wanted int64"),
    ],
)
def test_wrong_inputs_are_refused(change, error: type, message: str, device: str) -> None:
    with pytest.raises(error, match=f"PGD: {message}"):
        PGD(Net().to(device))(*change(*batch(device)))


def test_channels_must_match_the_normalisation() -> None:
    attack = FGSM(Net(), mean=(0.5,) * 2, std=(0.5,) * 2)
    with pytest.raises(ValueError, match="FGSM: images: wanted \\(N, 2, H, W\\)"):
        attack(*batch("cpu"))


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (PGD, {"eps": -0.1}, "PGD: eps"),
        (PGD, {"eps": float("nan")}, "PGD: eps"),
        (PGD, {"alpha": -1}, "PGD: alpha"),
        (PGD, {"steps": -1}, "PGD: steps"),
        (PGD, {"restarts": 0}, "PGD: restarts"),
        (PGD, {"mean": (0.5,)}, "PGD: mean and std"),
        (FGSM, {"eps": float("inf")}, "FGSM: eps"),
        (PGD, {"eps": 8}, "PGD: eps: wanted at most 1, in pixel units, got 8: is 8/255 meant?"),
        (FGSM, {"alpha": -1}, "FGSM: alpha"),
    ],
)
def test_wrong_settings_are_refused(attack: type, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack(Net(), **settings)
