"""Accuracies over a whole split."""

import pytest
import torch
from torch import Tensor, nn

import advkernels as ak
from freefast import ThreatModel, data, evaluate, models


@pytest.fixture(scope="module")
def digits() -> data.ImageData:
    return data.load("digits", limit_test=60)


@pytest.fixture
def model(device: str, digits: data.ImageData) -> nn.Module:
    """A small network after a few steps of Adam: some samples withstand an attack, some do not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("small_cnn", 10, 1, width=4).to(device)
    images = (digits.train.images / 255).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), digits.train.labels.to(device)).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def threat(digits: data.ImageData) -> ThreatModel:
    return ThreatModel(epsilon=0.1, mean=digits.mean, std=digits.std)


def test_accuracies_are_those_of_a_plain_loop(
    model: nn.Module, digits: data.ImageData, threat: ThreatModel, device: str
) -> None:
    scores = evaluate(model, digits, threat, steps=(1, 5), seed=3)
    images, labels = (digits.test.images / 255).to(device), digits.test.labels.to(device)
    images = images.contiguous(memory_format=torch.channels_last)

    def accuracy(x: Tensor) -> float:
        with torch.no_grad():
            return (model(x).argmax(1) == labels).double().mean().item()

    def attacked(steps: int) -> Tensor:
        delta = ak.uniform_init(images, 0.1, rng=ak.PhiloxState(3, device))
        for _ in range(steps):
            x = (images + delta).requires_grad_()
            logits = model(x)
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), x)
            right = (logits.argmax(1) == labels).view(-1, 1, 1, 1)
            moved = (delta + 0.025 * gradient.sign()).clamp(-0.1, 0.1)
            delta = torch.where(right, torch.max(torch.min(moved, 1 - images), -images), delta)
        return images + delta

    assert scores.natural == accuracy(images)
    assert scores.pgd == {1: accuracy(attacked(1)), 5: accuracy(attacked(5))}
    assert 0 < scores.pgd[5] < scores.pgd[1] < scores.natural
    assert scores.samples == 60
    assert scores.seconds > 0
    assert scores.as_row() == {"natural": scores.natural, "pgd1": scores.pgd[1], "pgd5": scores.pgd[5]}


def test_more_steps_and_restarts_fool_no_fewer(model: nn.Module, digits: data.ImageData, threat: ThreatModel) -> None:
    scores = evaluate(model, digits, threat, steps=(1, 2, 10))
    assert scores.natural >= scores.pgd[1] >= scores.pgd[2] >= scores.pgd[10]
    many = evaluate(model, digits, threat, steps=(2,), restarts=5, worst_case=True)
    assert many.pgd[2] < scores.pgd[2]


def test_alpha_is_a_quarter_of_epsilon_unless_given(
    model: nn.Module, digits: data.ImageData, threat: ThreatModel
) -> None:
    default = evaluate(model, digits, threat, steps=(2,)).pgd
    assert default == evaluate(model, digits, threat, steps=(2,), alpha=0.025).pgd
    assert default != evaluate(model, digits, threat, steps=(2,), alpha=0.1).pgd


def test_a_split_may_be_given(model: nn.Module, digits: data.ImageData, threat: ThreatModel) -> None:
    assert evaluate(model, digits.test, threat, steps=()).natural == evaluate(model, digits, threat, steps=()).natural
    assert evaluate(model, digits.train, threat, steps=()).samples == len(digits.train)


def test_the_model_is_left_as_it_was(model: nn.Module, digits: data.ImageData, threat: ThreatModel) -> None:
    model.train()
    model.features[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = None
    evaluate(model, digits, threat, steps=(2,))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"steps": (10, 0)}, ValueError, r"evaluate: steps: wanted at least 1, got \(10, 0\)"),
        ({"steps": 10}, TypeError, r"evaluate: steps: wanted several numbers such as \(10, 20\), got 10"),
        ({"restarts": 0}, ValueError, "evaluate: restarts: wanted at least 1, got 0"),
        ({"alpha": -0.1}, ValueError, "evaluate: alpha: wanted at least 0, got -0.1"),
    ],
)
def test_wrong_settings_are_refused(
    settings: dict, kind: type[Exception], message: str, digits: data.ImageData, threat: ThreatModel
) -> None:
    with pytest.raises(kind, match=f"^{message}$"):
        evaluate(nn.Linear(1, 1), digits, threat, **settings)


def test_a_model_without_parameters_is_where_the_data_are(digits: data.ImageData, threat: ThreatModel) -> None:
    class BrightestOfTen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10]

    wanted = (digits.test.images.flatten(1)[:, :10].argmax(1) == digits.test.labels).double().mean().item()
    assert evaluate(BrightestOfTen(), digits, threat, steps=(1,)).natural == wanted


def test_one_normalisation_may_serve_all_channels() -> None:
    """On the CPU whatever the device: what is tested is the numbers given."""
    images = data.load("fake", limit_test=20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images.test.images[0].numel(), len(images.classes)))
    one, each = (ThreatModel(epsilon=0.1, mean=(0.4,) * count, std=(0.3,) * count) for count in (1, images.channels))
    assert evaluate(model, images, one, steps=(2,)).pgd == evaluate(model, images, each, steps=(2,)).pgd
