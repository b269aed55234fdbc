"""Per-sample verdicts, their file, the confidence interval, and work that goes on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import advkernels as ak
from freefast import ThreatModel, UserError, Verdicts, data, evaluate, models
from freefast.attacks import Attack
from freefast.attacks.problem import Problem
from freefast.data import Split
from freefast.evaluation import partial
from freefast.evaluation.engine import Engine, Outcome
from freefast.evaluation.verdicts import interval


@pytest.fixture
def split() -> Split:
    return data.load("digits", limit_test=60).test


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build("small_cnn", 10, 1, width=4).eval()


@pytest.mark.parametrize(("right", "samples"), [(0, 1), (0, 60), (30, 60), (59, 60), (60, 60), (4321, 10000)])
def test_interval_is_wilsons(right: int, samples: int) -> None:
    wanted = binomtest(right, samples).proportion_ci(method="wilson")
    assert interval(right, samples) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_nothing_is_known_of_no_samples() -> None:
    assert interval(0, 0) == (0, 1)


class Shift(Attack):
    """Brightens by a random part of eps."""

    def _attack(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        return (problem.x + ak.uniform_init(problem.x, self.threat.epsilon, rng=rng)).clamp(0, 1)


def test_the_file_holds_what_was_found(model: nn.Module, split: Split, tmp_path: Path) -> None:
    attacks = {"shift": Shift(model, eps=0.3)}
    scores = evaluate(model, split, ThreatModel(epsilon=0.2), steps=(4, 2), attacks=attacks)
    verdicts = scores.verdicts
    assert verdicts.steps == (2, 4)
    assert torch.equal(verdicts.label, split.labels)
    assert scores.pgd == {4: verdicts.robust(4).double().mean(), 2: verdicts.robust(2).double().mean()}
    assert scores.attacks == {"shift": verdicts.robust("shift").double().mean()}
    verdicts.save(tmp_path / "verdicts.npz")
    read = Verdicts.load(tmp_path / "verdicts.npz")
    for name in ("index", "label", "clean", "adversarial", "fooled_step"):
        assert torch.equal(getattr(read, name), getattr(verdicts, name)), name
    assert (read.steps, list(read.attacks)) == ((2, 4), ["shift"])
    assert torch.equal(read.attacks["shift"], verdicts.attacks["shift"])
    with np.load(tmp_path / "verdicts.npz") as file:
        assert file["adversarial"].shape == (60, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["verdicts.npz"]


def test_classes(model: nn.Module, split: Split) -> None:
    verdicts = evaluate(model, split, ThreatModel(epsilon=0.1), steps=(2,)).verdicts
    table = verdicts.by_class()
    assert sorted(table) == split.labels.unique().tolist()
    for label, row in table.items():
        own = split.labels == label
        assert row == {
            "samples": own.sum(),
            "natural": pytest.approx((verdicts.clean[own] == label).double().mean().item()),
            "pgd2": pytest.approx((verdicts.adversarial[own, 0] == label).double().mean().item()),
        }


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "verdicts.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"verdicts\.npz: not a file of verdicts"):
        Verdicts.load(tmp_path / "verdicts.npz")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", index=np.arange(3))
    with pytest.raises(UserError, match="it lacks steps, label"):
        Verdicts.load(tmp_path / "other.npz")


def evaluate_and_stop(monkeypatch: pytest.MonkeyPatch, samples: int, *arguments: object, **settings: object) -> None:
    """Interrupt an evaluation once so many samples are done."""
    run = Engine.run

    def stopped(self: Engine) -> Iterator[Outcome]:
        for outcome in run(self):
            yield outcome
            if int(outcome.done[:-1].sum()) >= samples:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run", stopped)
        patch.setattr("freefast.evaluation.engine._TELL_EVERY", 0.0)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*arguments, **settings)


def test_it_goes_on_where_it_was_interrupted(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threat, path = ThreatModel(epsilon=0.1), tmp_path / "partial"
    wanted = evaluate(model, split, threat, steps=(2, 5), restarts=2, batch_size=16).verdicts
    evaluate_and_stop(monkeypatch, 20, model, split, threat, steps=(2, 5), restarts=2, batch_size=16, partial=path)
    assert [file.name for file in tmp_path.iterdir()] == ["partial.pgd.npz"]
    done = int(np.load(tmp_path / "partial.pgd.npz")["done"].sum())
    assert 20 <= done < 60

    attacked: list[int] = []
    init = Engine.__init__

    def counted(self: Engine, model: nn.Module, images: Tensor, *rest: object, **settings: object) -> None:
        attacked.append(len(images))
        init(self, model, images, *rest, **settings)

    monkeypatch.setattr(Engine, "__init__", counted)
    verdicts = evaluate(model, split, threat, steps=(2, 5), restarts=2, batch_size=16, partial=path).verdicts
    assert attacked == [60 - done]
    assert torch.equal(verdicts.adversarial, wanted.adversarial)
    assert torch.equal(verdicts.fooled_step, wanted.fooled_step)
    assert list(tmp_path.iterdir()) == []


def test_work_of_another_model_or_setting_is_not_taken(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "partial"
    threat = ThreatModel(epsilon=0.1)
    evaluate_and_stop(monkeypatch, 20, model, split, threat, steps=(5,), batch_size=16, partial=path)
    kept = (tmp_path / "partial.pgd.npz").read_bytes()
    with torch.no_grad():
        model.features[0].weight.mul_(0.5)
    for threat, seed in ((ThreatModel(epsilon=0.1), 0), (ThreatModel(epsilon=0.2), 0), (ThreatModel(epsilon=0.1), 1)):
        (tmp_path / "partial.pgd.npz").write_bytes(kept)
        wanted = evaluate(model, split, threat, steps=(5,), seed=seed, batch_size=16).verdicts
        verdicts = evaluate(model, split, threat, steps=(5,), seed=seed, batch_size=16, partial=path).verdicts
        assert torch.equal(verdicts.adversarial, wanted.adversarial)


def test_an_attack_goes_on_where_it_was_interrupted(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "_SAVE_EVERY", 0.0)
    split = Split(images=split.images, labels=model(split.images / 255).argmax(1))  # all right: every batch is attacked
    threat, path = ThreatModel(epsilon=0.1), tmp_path / "partial"
    settings = {"steps": (), "batch_size": 16, "attacks": {"shift": Shift(model, eps=0.4)}}
    wanted = evaluate(model, split, threat, **settings).verdicts.attacks["shift"]
    calls = 0
    attack = Shift._attack

    def stopped(self: Shift, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return attack(self, problem, rng)

    monkeypatch.setattr(Shift, "_attack", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, split, threat, **settings, partial=path)
    assert torch.equal(evaluate(model, split, threat, **settings, partial=path).verdicts.attacks["shift"], wanted)
    assert calls == 3 + 2  # of four batches two were kept
    assert list(tmp_path.iterdir()) == []
