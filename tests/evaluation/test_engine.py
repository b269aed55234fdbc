"""Continuous batching against the report's attack on full batches: the same verdicts, sample by sample."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast import EvaluationWarning, ThreatModel, data, evaluate, models
from freefast.data import Split
from freefast.evaluation.engine import RESTART, Engine, Outcome, Plan
from freefast.precision import FP32

EPSILON, ALPHA, SEED = 0.15, 0.0375, 11
STEPS = (10, 20, 50)


@pytest.fixture(scope="module")
def split() -> Split:
    """2,000 images: scikit-learn's digits, and some of them shifted by a pixel."""
    digits = data.load("digits")
    images = torch.cat([digits.train.images, digits.test.images])
    labels = torch.cat([digits.train.labels, digits.test.labels])
    more = 2000 - len(images)
    return Split(images=torch.cat([images, images[:more].roll(1, 3)]), labels=torch.cat([labels, labels[:more]]))


@pytest.fixture(scope="module")
def model(split: Split, one_thread_for_all: None) -> nn.Module:
    """A small network after some epochs of FGSM training by Adam: about half of the samples withstand the attack."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("small_cnn", 10, 1, width=8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(6):
            for rows in torch.randperm(len(split)).split(100):
                x, labels = split.images[rows] / 255, split.labels[rows]
                x.requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
                adversarial = (x.detach() + 0.1 * gradient.sign()).clamp(0, 1)
                optimizer.zero_grad()
                F.cross_entropy(model(adversarial), labels).backward()
                optimizer.step()
    return model.eval()


def noise(x: Tensor, restart: int) -> Tensor:
    rng = ak.PhiloxState(SEED, x.device)
    return ak.uniform_init(x, EPSILON, rng=rng, sample_index=torch.arange(len(x), device=x.device) + restart * RESTART)


def report_attack(model: nn.Module, x: Tensor, y: Tensor, steps: int, restarts: int, first: int = 0) -> Tensor:
    """(N,) predictions at the perturbation that the report's code ends with, on one batch of all samples.

    first: number of the first restart's noise
    """
    max_loss, max_delta = torch.zeros(len(y)), torch.zeros_like(x)
    for restart in range(first, first + restarts):
        delta = noise(x, restart)
        for _ in range(steps):
            delta.requires_grad_()
            output = model(x + delta)
            index = torch.where(output.max(1)[1] == y)[0]
            if len(index) == 0:
                break
            (gradient,) = torch.autograd.grad(F.cross_entropy(output, y), delta)
            delta = delta.detach()
            moved = torch.clamp(delta[index] + ALPHA * torch.sign(gradient[index]), -EPSILON, EPSILON)
            delta[index] = torch.max(torch.min(moved, 1 - x[index]), 0 - x[index])
        with torch.no_grad():
            loss = F.cross_entropy(model(x + delta), y, reduction="none")
        better = loss >= max_loss
        max_delta[better] = delta.detach()[better]
        max_loss = torch.max(max_loss, loss)
    with torch.no_grad():
        return model(x + max_delta).argmax(1)


def pixels(split: Split) -> Tensor:
    return (split.images / 255).contiguous(memory_format=torch.channels_last)


def some(split: Split, samples: int) -> Split:
    return Split(images=split.images[:samples], labels=split.labels[:samples])


def test_verdicts_are_the_reports(model: nn.Module, split: Split) -> None:
    scores = evaluate(model, split, ThreatModel(epsilon=EPSILON), steps=STEPS, alpha=ALPHA, seed=SEED)
    assert 0.4 < scores.pgd[50] < 0.7
    for steps in STEPS:
        wanted = report_attack(model, pixels(split), split.labels, steps, restarts=1) == split.labels
        assert (scores.verdicts.robust(steps) == wanted).float().mean() >= 0.999


@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_verdicts_do_not_depend_on_the_batch_size(model: nn.Module, split: Split, batch_size: int) -> None:
    few = some(split, 200)
    threat = ThreatModel(epsilon=EPSILON)
    scores = evaluate(model, few, threat, steps=STEPS, alpha=ALPHA, seed=SEED, batch_size=batch_size)
    for steps in STEPS:
        wanted = report_attack(model, pixels(few), few.labels, steps, restarts=1) == few.labels
        assert torch.equal(scores.verdicts.robust(steps), wanted)


@pytest.mark.parametrize("worst_case", [False, True])
def test_restarts(model: nn.Module, split: Split, worst_case: bool) -> None:
    few = some(split, 300)
    scores = evaluate(
        model, few, ThreatModel(epsilon=EPSILON), steps=(3, 5), restarts=4, alpha=ALPHA, seed=SEED, batch_size=32,
        worst_case=worst_case,
    )  # fmt: skip
    single = [report_attack(model, pixels(few), few.labels, 5, 1, first=restart) == few.labels for restart in range(4)]
    by_loss = report_attack(model, pixels(few), few.labels, 5, 4) == few.labels
    wanted = torch.stack(single).all(0) if worst_case else by_loss
    assert torch.equal(scores.verdicts.robust(5), wanted)
    assert wanted.sum() < single[0].sum()


def test_fooled_step_is_where_the_run_ends(model: nn.Module, split: Split) -> None:
    """A sample fooled at step s is right after s - 1 steps and wrong after s."""
    few = some(split, 300)
    verdicts = evaluate(model, few, ThreatModel(epsilon=EPSILON), steps=(6,), alpha=ALPHA, seed=SEED).verdicts
    assert torch.equal(verdicts.fooled_step < 0, verdicts.robust(6))
    assert verdicts.fooled_step.unique().tolist() == [-1, 0, 1, 2, 3, 4, 5, 6]
    for steps in range(7):
        right = report_attack(model, pixels(few), few.labels, steps, restarts=1) == few.labels
        assert torch.equal(right, (verdicts.fooled_step < 0) | (verdicts.fooled_step > steps))


def test_a_full_run_makes_every_step(model: nn.Module, split: Split) -> None:
    few = some(split, 300)
    scores = evaluate(
        model, few, ThreatModel(epsilon=EPSILON), steps=(2, 4), alpha=ALPHA, seed=SEED, full=True, batch_size=64
    )
    x, delta = pixels(few), noise(pixels(few), 0)
    for steps in (2, 4):
        for _ in range(2):
            delta.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + delta), few.labels), delta)
            delta = torch.clamp(delta.detach() + ALPHA * gradient.sign(), -EPSILON, EPSILON)
            delta = torch.max(torch.min(delta, 1 - x), 0 - x)
        with torch.no_grad():
            wanted = model(x + delta).argmax(1)
        assert torch.equal(scores.verdicts.adversarial[:, scores.verdicts.steps.index(steps)], wanted)
    stopped = evaluate(model, few, ThreatModel(epsilon=EPSILON), steps=(4,), alpha=ALPHA, seed=SEED).verdicts
    wrong = scores.verdicts.fooled_step >= 0
    assert torch.equal(scores.verdicts.fooled_step[wrong], stopped.fooled_step[wrong])


class Counting(nn.Module):
    """A model that counts the images it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.model(x)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": (50,)},
        {"steps": (10, 17, 20, 50)},
        {"steps": (10, 17, 50), "full": True},
        {"steps": (10, 50), "restarts": 3},
        {"steps": (50,), "restarts": 3, "worst_case": True},
    ],
)
def test_steps_that_repeat_are_left_out(model: nn.Module, split: Split, settings: dict) -> None:
    """The verdicts, classes and steps of all steps at less than two thirds of the work."""
    few = some(split, 300)

    def attack(skip: bool) -> tuple[Outcome, int]:
        plan = Plan(threat=ThreatModel(epsilon=EPSILON), alpha=ALPHA, seed=SEED, skip=skip, **settings)
        counting = Counting(model)
        numbers = torch.arange(len(few))
        engine = Engine(counting, few.images, few.labels, numbers, plan, slots=64, precision=FP32)
        for _ in engine.run():
            pass
        return engine.outcome, counting.images

    (wanted, every), (outcome, images) = attack(skip=False), attack(skip=True)
    assert torch.equal(outcome.prediction[:-1], wanted.prediction[:-1])
    assert torch.equal(outcome.fooled_step[:-1], wanted.fooled_step[:-1])
    assert images < every * 2 / 3


def test_a_model_that_answers_differently_makes_every_step(model: nn.Module, split: Split) -> None:
    """Its next round might fool it."""

    class Noisy(Counting):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 + 0.1 * torch.rand(len(x), 1))

    noisy, few = Noisy(model), some(split, 50)
    with pytest.warns(EvaluationWarning, match="from call to call"):
        scores = evaluate(noisy, few, ThreatModel(epsilon=0), steps=(50,), alpha=ALPHA)
    assert noisy.images > 51 * scores.pgd[50] * len(few)


def test_l2(model: nn.Module, split: Split) -> None:
    """Steps along the gradient's direction, in plain PyTorch from the engine's own starts."""
    few = some(split, 200)
    threat = ThreatModel(epsilon=0.6, norm="l2")
    scores = evaluate(model, few, threat, steps=(5,), alpha=0.2, seed=SEED, full=True)
    x = pixels(few)
    delta = ak.l2_init(x, 0.6, rng=ak.PhiloxState(SEED, x.device), sample_index=torch.arange(len(x)))
    for _ in range(5):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + delta), few.labels, reduction="sum"), delta)
        delta = delta.detach() + 0.2 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta *= (0.6 / delta.flatten(1).norm(dim=1).clamp(min=1e-12)).clamp(max=1).view(-1, 1, 1, 1)
        delta = torch.max(torch.min(delta, 1 - x), 0 - x)
    with torch.no_grad():
        wanted = model(x + delta).argmax(1) == few.labels
    assert (scores.verdicts.robust(5) == wanted).float().mean() > 0.99
    assert 0.1 < scores.pgd[5] < 0.9
