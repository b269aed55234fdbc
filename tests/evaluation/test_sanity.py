"""What an evaluation warns of, and that it does not warn where nothing is wrong."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast import EvaluationWarning, GradientWarning, ThreatModel, evaluate
from freefast.attacks import Attack
from freefast.attacks.problem import Problem
from freefast.data import Split
from freefast.errors import UserError
from freefast.evaluation import sanity
from freefast.evaluation.verdicts import Verdicts


class Linear(nn.Module):
    """Two classes: whether the image is bright. Subclasses change its answer."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = self.answer(4 * x.flatten(1).mean(1) - 2)
        return torch.stack([-brightness, brightness], 1)

    def answer(self, brightness: Tensor) -> Tensor:
        return brightness


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Split(images=images, labels=(images.float().flatten(1).mean(1) > 127.5).long())


def warned(model: nn.Module, split: Split, threat: ThreatModel | None = None, **settings: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(model, split, threat or ThreatModel(epsilon=0.05), steps=(2,), **settings)
    assert all(warning.category in (EvaluationWarning, GradientWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_plain_model_is_no_trouble(split: Split) -> None:
    assert warned(Linear(), split) == []
    assert warned(Linear(), split, ThreatModel(epsilon=0.5, norm="l2")) == []


class Dropout(Linear):
    def answer(self, brightness: Tensor) -> Tensor:
        return F.dropout(brightness, 0.5, training=True)


class BatchNormalised(Linear):
    def answer(self, brightness: Tensor) -> Tensor:
        return (brightness - brightness.mean()) / (brightness.std(correction=0) + 0.1)


class Nan(Linear):
    def answer(self, brightness: Tensor) -> Tensor:
        return brightness * torch.nan


class MaskedDropout(Dropout):
    """One class is left out, another image's answer is no number."""

    def forward(self, x: Tensor) -> Tensor:
        logits = F.pad(super().forward(x), (0, 1), value=-torch.inf)
        logits[-1] = torch.nan
        return logits


class Staircase(Linear):
    def answer(self, brightness: Tensor) -> Tensor:
        return brightness.sign() + 0 * brightness


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Dropout(), "change from call to call"),
        (MaskedDropout(), "change from call to call"),
        (BatchNormalised(), "depend on the batch"),
        (Nan(), "logits with NaN for 40 clean images and 40 adversarial ones, which count as wrong"),
        (Staircase(), "100% of the gradients' elements are exactly zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_model_that_hides_something(model: nn.Module, message: str, split: Split) -> None:
    torch.manual_seed(0)  # dropout might by chance say the same twice
    assert any(message in text for text in warned(model, split))


def test_a_model_that_takes_no_single_image_is_refused(split: Split) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 2))
    with pytest.raises(UserError, match=r"model: wanted logits \(1, at least 2\).* got ValueError: Expected more"):
        evaluate(model, split, ThreatModel(epsilon=0.05), steps=(2,))


def test_labels_below_0_are_refused(split: Split) -> None:
    with pytest.raises(UserError, match="evaluate: labels: wanted at least 0, got -1"):
        evaluate(Linear(), Split(images=split.images, labels=split.labels - 1), ThreatModel(epsilon=0.05), steps=(2,))


@pytest.mark.parametrize(
    ("threat", "warns"),
    [
        (ThreatModel(epsilon=0.5), True),
        (ThreatModel(epsilon=0.49), False),
        (ThreatModel(epsilon=2.0, norm="l2"), True),  # half of sqrt(16)
        (ThreatModel(epsilon=1.9, norm="l2"), False),
    ],
)
def test_a_ball_as_large_as_the_box(threat: ThreatModel, warns: bool, split: Split) -> None:
    assert any("can be made grey" in text for text in warned(Linear(), split, threat)) is warns


class Oracle(Attack):
    """Brightens dark images and darkens bright ones, whatever the gradient."""

    black_box = True

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        return (problem.x + self.threat.epsilon * (1 - 2 * problem.labels).view(-1, 1, 1, 1)).clamp(0, 1)


def test_a_black_box_that_is_stronger(split: Split) -> None:
    def texts(model: nn.Module) -> list[str]:
        return warned(model, split, alpha=0.05, attacks={"oracle": Oracle(model, eps=0.05)})

    assert any("oracle fools" in text for text in texts(Staircase()))
    assert not any("oracle fools" in text for text in texts(Linear()))


def rising(steps: tuple[int, ...], right: Callable[[int], int]) -> Verdicts:
    label = torch.zeros(100, dtype=torch.int64)
    adversarial = torch.stack([(torch.arange(100) >= right(count)).long() for count in steps], 1)
    return Verdicts(
        index=torch.arange(100), label=label, clean=label, steps=steps, adversarial=adversarial, fooled_step=label
    )


def test_accuracy_that_rises_with_more_steps() -> None:
    with pytest.warns(EvaluationWarning, match=r"PGD-20 leaves 52.00% right, PGD-10 50.00%"):
        sanity.check_verdicts(rising((10, 20), lambda count: 48 + count // 5), [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sanity.check_verdicts(rising((10, 20), lambda count: 50 + (count == 20)), [])
        sanity.check_verdicts(rising((10, 20), lambda count: 60 - count), [])
