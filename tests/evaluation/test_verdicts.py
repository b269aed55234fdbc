"""Per-sample verdicts, their file, the confidence interval, and work that goes on."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import advkernels as ak
from freefast import EvaluationWarning, ThreatModel, UserError, Verdicts, data, evaluate, models
from freefast.attacks import FGSM, Attack, Square
from freefast.attacks.problem import Problem
from freefast.data import Split
from freefast.evaluation import partial
from freefast.evaluation.engine import Engine, Outcome
from freefast.evaluation.job import Bar
from freefast.evaluation.partial import Partial
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
        delta = ak.uniform_init(problem.x, self.threat.epsilon, rng=rng, sample_index=problem.sample_index)
        return (problem.x + delta).clamp(0, 1)


def test_the_file_holds_what_was_found(model: nn.Module, split: Split, tmp_path: Path) -> None:
    attacks = {"shift": Shift(model, eps=0.2)}
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
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("partial.pgd.")
    done = int(np.load(kept)["done"].sum())
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
    (kept,) = tmp_path.iterdir()
    content = kept.read_bytes()
    with torch.no_grad():
        model.features[0].weight.mul_(0.5)
    for threat, seed in ((ThreatModel(epsilon=0.1), 0), (ThreatModel(epsilon=0.2), 0), (ThreatModel(epsilon=0.1), 1)):
        wanted = evaluate(model, split, threat, steps=(5,), seed=seed, batch_size=16).verdicts
        verdicts = evaluate(model, split, threat, steps=(5,), seed=seed, batch_size=16, partial=path).verdicts
        assert torch.equal(verdicts.adversarial, wanted.adversarial)
    assert kept.read_bytes() == content


def test_an_attack_goes_on_where_it_was_interrupted(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "_SAVE_EVERY", 0.0)
    split = Split(images=split.images, labels=model(split.images / 255).argmax(1))  # all right: every batch is attacked
    threat, path = ThreatModel(epsilon=0.4), tmp_path / "partial"
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


def test_the_verdicts_of_another_surrogate_are_not_taken_over(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.neg_()
    monkeypatch.setattr(Partial, "remove", lambda self: None)
    for attacked, files in ((other, 1), (model, 2), (other, 2)):
        attacks = {"fgsm": FGSM(attacked, eps=0.3)}
        evaluate(model, split, ThreatModel(epsilon=0.3), steps=(), attacks=attacks, partial=tmp_path / "partial")
        assert len(list(tmp_path.glob("partial.fgsm.*"))) == files


def test_pgd_is_kept_while_another_attack_is_interrupted(
    model: nn.Module, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Shift, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        raise KeyboardInterrupt

    settings = {"steps": (2,), "attacks": {"shift": Shift(model, eps=0.1)}, "partial": tmp_path / "partial"}
    wanted = evaluate(model, split, ThreatModel(epsilon=0.1), **settings).verdicts
    with monkeypatch.context() as patch:
        patch.setattr(Shift, "_attack", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, split, ThreatModel(epsilon=0.1), **settings)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("partial.pgd.")
    monkeypatch.delattr(Engine, "run")  # PGD is not run again
    assert torch.equal(
        evaluate(model, split, ThreatModel(epsilon=0.1), **settings).verdicts.adversarial, wanted.adversarial
    )
    assert list(tmp_path.iterdir()) == []


def test_a_broken_partial_file_is_begun_anew(model: nn.Module, split: Split, tmp_path: Path) -> None:
    threat, path = ThreatModel(epsilon=0.1), tmp_path / "partial"
    with pytest.MonkeyPatch.context() as patch:
        evaluate_and_stop(patch, 20, model, split, threat, steps=(5,), batch_size=16, partial=path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"broken")
    with pytest.warns(EvaluationWarning, match="begins anew"):
        evaluate(model, split, threat, steps=(5,), batch_size=16, partial=path)


def test_the_accuracy_shown_is_of_the_first_samples(split: Split) -> None:
    """Of those done: the third sample, still under attack, may withstand it."""
    work = Partial(None, "", len(split), 1)
    told: list[tuple[int, str]] = []
    bar = Bar("PGD-5", work, split.labels, lambda samples, text=None: told.append((samples, text)))
    right = split.labels[[0]].unsqueeze(1)
    work.take(torch.tensor([0]), right)
    work.take(torch.tensor([1, 5, 6]), torch.full((3, 1), -1))
    bar.tell()
    assert told == [(4, "PGD-5: 50.0% robust (9.5% to 90.5%)")]


class SometimesNan(nn.Module):
    """All images are of class 0, but for those with a pixel between two of the 256 levels: their logits are NaN."""

    def forward(self, x: Tensor) -> Tensor:
        between = ((x * 255 - (x * 255).round()).abs() > 1e-3).flatten(1).any(1)
        logits = torch.cat([x.flatten(1)[:, :1] + 9, x.flatten(1)[:, 1:10]], 1)
        return torch.where(between.unsqueeze(1), torch.nan, logits)


@pytest.mark.parametrize("restarts", [1, 2])
def test_nan_is_wrong(restarts: int, split: Split) -> None:
    zeros = Split(images=split.images, labels=torch.zeros_like(split.labels))
    with pytest.warns(EvaluationWarning, match="NaN for 0 clean images and 60 adversarial ones"):
        scores = evaluate(SometimesNan(), zeros, ThreatModel(epsilon=0.1), steps=(3,), restarts=restarts)
    assert (scores.natural, scores.pgd) == (1, {3: 0})
    assert (scores.verdicts.adversarial == -1).all()
    assert (scores.verdicts.fooled_step == 0).all()


class Brightest(nn.Module):
    """The brightest of ten pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, 10:20]


def test_other_attacks_do_not_depend_on_the_batch_size(split: Split) -> None:
    model = Brightest()
    labels = model(split.images / 255).argmax(1)
    named = Split(images=split.images, labels=labels)
    attacks = {"shift": Shift(model, eps=0.4), "square": Square(model, eps=0.4, queries=20)}
    found = [
        evaluate(model, named, ThreatModel(epsilon=0.4), steps=(), attacks=attacks, batch_size=size).verdicts.attacks
        for size in (60, 7)
    ]
    for name in attacks:
        assert torch.equal(found[0][name], found[1][name])
        assert (found[0][name] != labels).any()


@pytest.mark.parametrize("name", ["natural", "pgd3", "pgd", "a/b"])
def test_names_of_attacks(name: str, model: nn.Module, split: Split) -> None:
    with pytest.raises(UserError, match="attacks: wanted a name"):
        evaluate(model, split, ThreatModel(epsilon=0.1), attacks={name: Shift(model, eps=0.1)})


@pytest.mark.parametrize("settings", [{"eps": 0.2}, {"eps": 0.1, "norm": "l2"}, {"eps": 0.1, "targeted": True}])
def test_attacks_of_another_kind(settings: dict, model: nn.Module, split: Split) -> None:
    with pytest.raises(UserError, match="attacks: fgsm: wanted"):
        evaluate(model, split, ThreatModel(epsilon=0.1), attacks={"fgsm": FGSM(model, **settings)})
