"""What holds for every attack, under both norms."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import freefast.attacks
from freefast.attacks import APGD, APGDT, FGSM, MIFGSM, PGD, Attack, AutoAttackWithoutFAB, Square
from freefast.attacks.health import GradientWarning

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
EPSILON = {"linf": 0.1, "l2": 0.7}
CASES: dict[str, tuple[type[Attack], dict]] = {
    "FGSM": (FGSM, {}),
    "random FGSM": (FGSM, {"random_start": True}),
    "MIFGSM": (MIFGSM, {"steps": 3}),
    "PGD": (PGD, {"steps": 3, "alpha": 0.2, "restarts": 2}),
    "APGD": (APGD, {"steps": 6, "restarts": 2}),
    "APGD dlr": (APGD, {"steps": 6, "loss": "dlr", "stop_when_fooled": False}),
    "APGDT": (APGDT, {"steps": 4, "target_classes": 2}),
    "Square": (Square, {"queries": 20, "restarts": 2}),
    "AutoAttackWithoutFAB": (AutoAttackWithoutFAB, {"steps": 3, "queries": 5}),
}
TARGETED = [name for name in CASES if name not in ("APGDT", "AutoAttackWithoutFAB")]
RANDOM = [name for name in CASES if name not in ("FGSM", "MIFGSM")]

pytestmark = pytest.mark.filterwarnings("ignore::freefast.attacks.health.GradientWarning")
norms = pytest.mark.parametrize("norm", ["linf", "l2"])
every = pytest.mark.parametrize("name", CASES)


def build(name: str, model: nn.Module, norm: str, **given: object) -> Attack:
    """The attack with a small budget."""
    attack, budget = CASES[name]
    return attack(model, norm=norm, **{"eps": EPSILON[norm], **budget, **given})


class Net(nn.Module):
    """A convolution with BatchNorm and Dropout for images of any size."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5)
            )
            self.linear = nn.Linear(72, 5, bias=False)
            nn.init.normal_(self.linear.weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(self.layers(x - 0.5), 3).flatten(1))


def batch(samples: int = 8, height: int = 7, width: int = 5, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = (torch.rand(samples, channels, height, width, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    return images, torch.randint(0, 5, (samples,), generator=generator)


def rightly(model: nn.Module, samples: int = 8) -> tuple[Tensor, Tensor]:
    """A batch with the labels that the model gives it."""
    images, _ = batch(samples)
    with torch.no_grad():
        return images, model(images).argmax(1)


def assert_allowed(adversarial: Tensor, images: Tensor, eps: Tensor | float, norm: str, rounding: float) -> None:
    """In the box, and in the ball but for a rounding of each pixel."""
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1  # NaN would be neither
    delta = (adversarial.double() - images.double()).flatten(1)
    eps = torch.as_tensor(eps).float().double()
    if norm == "linf":
        assert (delta.abs().amax(1) <= eps + rounding).all()
    else:
        assert (delta.norm(dim=1) <= eps * (1 + 2**-23) + rounding * delta.shape[1] ** 0.5).all()


def test_all_attacks_are_here() -> None:
    named = [getattr(freefast.attacks, name) for name in freefast.attacks.__all__]
    public = {kind for kind in named if isinstance(kind, type)} - {Attack}
    assert public == {attack for attack, _ in CASES.values()}


@every
@norms
@settings(max_examples=8, deadline=None)
@given(
    share=st.floats(0, 1),
    samples=st.integers(0, 4),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    channels=st.sampled_from([1, 3]),
    normalised=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_ball_box_and_labels(
    name: str, norm: str, share: float, samples: int, height: int, width: int, channels: int,
    normalised: bool, seed: int,
) -> None:  # fmt: skip
    eps = share * (1 if norm == "linf" else 4)
    images, labels = batch(samples, height, width, channels)
    copies = images.clone(), labels.clone()
    given = {"mean": MEAN[:channels], "std": STD[:channels]} if normalised else {}
    adversarial = build(name, Net(channels), norm, eps=eps, rng=seed, **given)(images, labels)
    assert adversarial.shape == images.shape
    if samples:
        assert_allowed(adversarial, images, eps, norm, rounding=2**-22 if normalised else 2**-25)
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])


@every
@norms
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_model_that_is_not_finite_gives_no_nan(name: str, norm: str, broken: float) -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.where(x.mean((1, 2, 3)) > 0.5, broken, 0.0)[:, None]

    model = Broken()
    images, labels = rightly(Net())
    adversarial = build(name, model, norm, rng=1)(images, labels)
    assert_allowed(adversarial, images, EPSILON[norm], norm, rounding=2**-25)


@every
@norms
def test_the_model_is_left_as_it_was(name: str, norm: str, device: str) -> None:
    model = Net().to(device).train()
    model.layers[3].eval()
    model.linear.weight.grad = torch.ones_like(model.linear.weight)
    model.layers[0].bias.requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    images, labels = (tensor.to(device) for tensor in batch())
    build(name, model, norm)(images, labels)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(model.linear.weight.grad, torch.ones_like(model.linear.weight))
    assert model.layers[0].weight.grad is None
    assert [parameter.requires_grad for parameter in model.layers[0].parameters()] == [True, False]


@every
@norms
def test_a_seed_and_a_generator_repeat(name: str, norm: str, device: str) -> None:
    model = Net().to(device)
    images, labels = (tensor.to(device) for tensor in rightly(Net()))

    def attacked(call_rng: object, **given: object) -> Tensor:
        return build(name, model, norm, **given)(images, labels, rng=call_rng)

    assert torch.equal(attacked(7), attacked(7))
    assert torch.equal(attacked(7), attacked(None, rng=7))
    first, second, other = (torch.Generator().manual_seed(seed) for seed in (7, 7, 8))
    assert torch.equal(attacked(first), attacked(second))
    assert torch.equal(attacked(first), attacked(second))
    assert torch.equal(attacked(None, rng=7), attacked(other)) == (name not in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_numbers_of_one_call_leave_the_attacks_own(name: str) -> None:
    model = Net()
    images, labels = rightly(model)
    attack = build(name, model, "linf", rng=3)
    attack(images, labels, rng=5)
    assert torch.equal(attack(images, labels), build(name, model, "linf", rng=3)(images, labels))


@every
@norms
def test_a_radius_for_each_sample(name: str, norm: str, device: str) -> None:
    model = Net().to(device)
    images, labels = (tensor.to(device) for tensor in rightly(Net()))
    attack = build(name, model, norm, mean=MEAN, std=STD, eps=0.3)
    same = torch.full((len(images),), 0.3, device=device)
    assert torch.equal(attack(images, labels, eps=same, rng=1), attack(images, labels, rng=1))
    eps = torch.linspace(0, 0.9, len(images), device=device)
    adversarial = attack(images, labels, eps=eps, rng=1)
    assert_allowed(adversarial, images, eps, norm, rounding=2**-22)
    assert (adversarial - images)[1:].flatten(1).any(1).any()


@every
@norms
def test_both_memory_formats_have_the_same_verdicts(name: str, norm: str, device: str) -> None:
    model = Net().to(device)
    images, labels = (tensor.to(device) for tensor in rightly(Net(), 32))

    def verdicts(memory_format: torch.memory_format) -> Tensor:
        adversarial = build(name, model, norm)(images.contiguous(memory_format=memory_format), labels, rng=4)
        assert adversarial.is_contiguous(memory_format=memory_format)
        return model(adversarial.contiguous()).argmax(1)

    assert torch.equal(verdicts(torch.contiguous_format), verdicts(torch.channels_last))


@every
@norms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, norm: str, dtype: torch.dtype, device: str) -> None:
    model = Net().to(device, dtype)
    images, labels = (tensor.to(device) for tensor in rightly(Net()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        adversarial = build(name, model, norm)(images, labels)
    assert_allowed(adversarial, images, EPSILON[norm], norm, rounding=2**-25)
    assert not torch.equal(adversarial, images)


@every
@norms
def test_it_fools(name: str, norm: str) -> None:
    model = Net()
    images, labels = rightly(model, 32)
    adversarial = build(name, model, norm, eps=3 * EPSILON[norm])(images, labels)
    with torch.no_grad():
        assert (model(adversarial).argmax(1) == labels).float().mean() < 0.8


@pytest.mark.parametrize("name", TARGETED)
@norms
def test_targeted_it_reaches(name: str, norm: str) -> None:
    model = Net()
    images, labels = rightly(model, 32)
    targets = (labels + 1) % 5
    adversarial = build(name, model, norm, targeted=True)(images, targets)
    with torch.no_grad():
        before, after = (F.cross_entropy(model(x), targets, reduction="none") for x in (images, adversarial))
    assert (after <= before).float().mean() > 0.9
    assert after.mean() < before.mean() - 0.1


@every
@norms
def test_a_sample_is_attacked_alike_in_every_batch(name: str, norm: str) -> None:
    """Its random numbers hang on its position alone, whoever leaves the batch."""
    model = Net()
    images, labels = rightly(model, 16)
    labels[::3] = (labels[::3] + 1) % 5
    whole = build(name, model, norm, rng=6)(images, labels)
    part = build(name, model, norm, rng=6)(images[:5], labels[:5])
    torch.testing.assert_close(part, whole[:5], rtol=0, atol=1e-5)  # a convolution may round by batch size


@norms
def test_a_black_box_takes_no_gradient(norm: str) -> None:
    class Opaque(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return super().forward(x).round()

    images, labels = rightly(Opaque())
    black_boxes = [name for name, (attack, _) in CASES.items() if attack.black_box]
    assert black_boxes == ["Square"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("Square", Opaque(), norm)(images, labels)
