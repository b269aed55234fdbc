"""The guard: what it holds out, what it sees, and what it does when robust accuracy falls."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import OPEN, interrupt_at, same, without_time

from freefast import OverfittingWarning, TrainConfig, UserError, data, evaluate, models, reporting, train
from freefast.data import Split
from freefast.evaluation import EvaluationWarning
from freefast.reporting import Run
from freefast.threat import ThreatModel
from freefast.training import guard, loop, selection
from freefast.training.captured import Step
from freefast.training.run_folder import RunFolder
from freefast.training.state import TrainState


def split(labels: torch.Tensor) -> Split:
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2) % 256
    return Split(images=images.to(torch.uint8), labels=labels)


def test_what_is_held_out_is_the_same_share_of_each_class_and_the_rest_is_left() -> None:
    labels = torch.arange(200) % 4
    labels[:40] = 0  # of the first class there are most
    whole = split(labels)
    rows, held_out = whole.hold_out(22, seed=3)
    for held, of in zip(held_out.labels.bincount().tolist(), labels.bincount().tolist(), strict=True):
        assert abs(held - of * 22 / 200) < 1
    together = torch.cat([whole.images[rows], held_out.images]).flatten(1)[:, 0]
    assert torch.equal(together.sort().values, whole.images.flatten(1)[:, 0].sort().values)
    assert torch.equal(rows, rows.sort().values)
    again, other = (whole.hold_out(22, seed)[0] for seed in (3, 4))
    assert torch.equal(rows, again)
    assert not torch.equal(rows, other)


def test_a_rare_class_is_not_taken_away() -> None:
    labels = torch.tensor([0] * 980 + [1] * 15 + [2] * 5)
    rows, _ = split(labels).hold_out(100, seed=0)
    left = labels[rows].bincount().tolist()
    assert left[0] == 882
    assert left[1] in (13, 14)
    assert left[2] in (4, 5)


@pytest.mark.parametrize(
    ("samples", "given", "wanted"),
    [(50_000, None, 1000), (1437, None, 143), (500, None, 50), (499, None, 0), (499, 20, 20), (50_000, 0, 0)],
)
def test_how_many_are_held_out(samples: int, given: int | None, wanted: int) -> None:
    rows, watch = guard.hold_out(TrainConfig(method="fast", guard_samples=given), split(torch.arange(samples) % 10))
    assert (0 if watch is None else len(watch.held_out)) == wanted
    assert rows is None if wanted == 0 else len(rows) == samples - wanted


def test_standard_holds_out_none() -> None:
    assert guard.hold_out(TrainConfig(method="standard"), split(torch.arange(900) % 10)) == (None, None)


def test_a_guard_that_cannot_be_is_refused() -> None:
    few = split(torch.arange(40) % 10)
    with pytest.raises(UserError, match="guard_samples: wanted fewer than the 40 training samples, got 40"):
        guard.hold_out(TrainConfig(method="fast", guard_samples=40), few)
    with pytest.raises(UserError, match="select: best is by the guard, which is off for 40 samples"):
        guard.hold_out(TrainConfig(method="fast", select="best"), few)


CONFIG = TrainConfig(method="fast")


def history(*scores: float, **changes: str | int) -> list[dict]:
    """Metrics of epochs with these accuracies, as training by the guard's judgement would write them."""
    entries: list[dict] = []
    for epoch, score in enumerate(scores, start=1):
        entries.append({"epoch": epoch, guard.ROBUST: score, "guard_natural": 0.8, "guard_samples": 100})
        entries[-1] |= guard.judge(entries, dataclasses.replace(CONFIG, **changes))
    return entries


@pytest.mark.parametrize(
    ("scores", "falls"),
    [
        ([0.1, 0.4, 0.45, 0.44], []),
        ([0.4, 0.2, 0.21], []),  # by 20 points, not by more
        ([0.9, 0.7], []),
        ([0.4, 0.45, 0.24], [3]),
        ([0.4, 0.19, 0.0, 0.0], [2]),
        ([0.4, 0.3, 0.19, 0.35, 0.1], [3, 5]),
        ([0.3, 0.0, 0.5, 0.25], [2, 4]),
        ([0.5, 0.29, 0.31, 0.29, 0.39, 0.29], [2]),  # around the line, which is no recovery
        ([0.5, 0.29, 0.4, 0.29], [2, 4]),  # half of the fall is one
    ],
)
@pytest.mark.filterwarnings("ignore::freefast.OverfittingWarning")
def test_a_fall_is_told_once(scores: list[float], falls: list[int]) -> None:
    entries = history(*scores)
    assert [entry["epoch"] for entry in entries if "collapse" in entry] == falls
    assert guard.summary(entries)["collapsed_epochs"] == falls
    assert guard.best(entries)["epoch"] == scores.index(max(scores)) + 1


@pytest.mark.parametrize(
    ("scores", "trained", "falls"),
    [
        ([0.1, 0.11, 0.05], [0.3, 0.5, 0.6], [3]),
        ([0.1, 0.02, 0.02, 0.02], [0.5, 0.5, 0.3, 0.5], [2]),  # no recovery between
        ([0.2, 0.0], [0.6, 0.4], []),  # 40 points, not more
        ([0.21, 0.15], [0.9, 0.9], []),  # it rose once: falls alone count
    ],
)
def test_a_run_that_never_rose_is_told_by_its_accuracy_in_training(
    scores: list[float], trained: list[float], falls: list[int]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entries: list[dict] = []
        for epoch, (score, accuracy) in enumerate(zip(scores, trained, strict=True), start=1):
            entries.append({"epoch": epoch, guard.ROBUST: score, "guard_natural": 0.8, "guard_samples": 100})
            entries[-1] |= {"train_accuracy": accuracy}
            entries[-1] |= guard.judge(entries, dataclasses.replace(CONFIG, on_collapse="stop"))
    assert [entry["epoch"] for entry in entries if "collapse" in entry] == falls
    assert [warning.category for warning in caught] == [OverfittingWarning] * len(falls)
    for epoch in falls:
        best, now = max(scores[:epoch]), scores[epoch - 1]
        assert entries[epoch - 1]["collapse"] == {
            "best_epoch": scores.index(best) + 1, "best": best, "now": now, "trained": trained[epoch - 1],
            "then": "stop",
        }  # fmt: skip
        said = (
            f"leaves {now:.1%}, {best:.1%} in the best epoch, the attack of training {trained[epoch - 1]:.1%} of what"
        )
        assert said in str(caught[0].message)


def test_a_run_attacked_once_is_told_by_its_accuracy_in_training() -> None:
    config = TrainConfig(method="fast", epochs=2, guard_samples=0)
    history = [{"epoch": 1, "train_accuracy": 0.3}, {"epoch": 2, "train_accuracy": 0.7}]
    with pytest.warns(OverfittingWarning, match=r"PGD-10 on the test set leaves 0.0%, .* attack of training 70.0%"):
        added = guard.judge_end(history, config, {"pgd10": 0.0})
    assert added["collapse"]["trained"] == 0.7
    assert guard.judge_end(history, config, {"pgd10": 0.31}) == {}


@pytest.mark.parametrize(("last", "warned"), [(0.41, True), (0.4, False)])
def test_weights_far_worse_without_an_attack_are_told(last: float, warned: bool) -> None:
    history = [
        {"epoch": 1, guard.ROBUST: 0.06, "guard_natural": 0.2},
        {"epoch": 2, guard.ROBUST: 0.04, "guard_natural": last},
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selection.warn(CONFIG, history)
    assert [warning.category for warning in caught] == [EvaluationWarning] * warned
    assert all("best takes epoch 1, natural accuracy 20.0% and 6.0% under PGD" in str(one.message) for one in caught)


def test_the_warning_says_what_fell_and_what_follows() -> None:
    said = (
        r"PGD-10 on 100 held-out samples "
        r"fell from 50.0% in epoch 2 to 10.0%, natural accuracy went from 80.0% to 80.0%: "
    )
    for then, doubt, follows in (
        ("continue", ", unless it recovers", "training goes on, the weights of epoch 2 are kept"),
        ("stop", "", "the run ends, the weights of epoch 2 are kept"),
        ("rollback", "", "back to epoch 2, alpha 0.125"),
    ):
        start = f"fast, epoch 3: catastrophic overfitting{doubt}: "
        with pytest.warns(OverfittingWarning, match=start + said + follows):
            entries = history(0.4, 0.5, 0.1, on_collapse=then)
        assert entries[-1]["collapse"] == {"best_epoch": 2, "best": 0.5, "now": 0.1, "then": then}


@pytest.mark.filterwarnings("ignore::freefast.OverfittingWarning")
def test_rollbacks_come_to_an_end() -> None:
    entries = history(0.5, 0.1, 0.1, 0.1, 0.1, on_collapse="rollback")
    assert [entry.get("collapse", {}).get("then") for entry in entries] == [None, *["rollback"] * 3, "stop"]
    assert guard.has_stopped(entries)
    assert [guard.alpha(CONFIG, count) for count in range(3)] == [0.25, 0.125, 0.0625]
    assert guard.setting(CONFIG, entries) == "alpha=0.25, 0.03125 after 3 rollbacks"
    assert guard.setting(CONFIG, entries[:2]) == "alpha=0.25, 0.125 after 1 rollback"
    assert guard.setting(CONFIG, entries[:1]) == "alpha=0.25"


@pytest.fixture
def config(tmp_path: Path, device: str) -> TrainConfig:
    """Three batches of 20 an epoch."""
    return TrainConfig(
        method="fast", width=4, limit_train=70, limit_test=40, guard_samples=10, batch_size=20, epochs=5,
        eval_steps=(2,), device=device, out=tmp_path / "run",
    )  # fmt: skip


def test_what_is_held_out_is_not_trained_on(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bytes] = set()
    make_step = loop.setup.make_step

    def watched(config: TrainConfig) -> Step:
        step = make_step(config)

        def recording(state: TrainState, images: torch.Tensor, labels: torch.Tensor) -> tuple:
            seen.update(image.cpu().numpy().tobytes() for image in images)
            return step(state, images, labels)

        return recording

    monkeypatch.setattr(loop.setup, "make_step", watched)
    train(dataclasses.replace(config, dataset="fake", epochs=2, image_size=8, graph="off"))
    made_up = data.load("fake", image_size=8, limit_train=70)
    threat = ThreatModel(epsilon=0.1, mean=made_up.mean, std=made_up.std)
    rows, held_out = made_up.train.hold_out(10, seed=0)

    def as_read(images: torch.Tensor) -> set[bytes]:
        normal = threat.normalize(images.float() / 255).to(memory_format=torch.channels_last)
        return {image.numpy().tobytes() for image in normal}

    assert len(seen) == 60
    assert not seen & as_read(held_out.images)
    assert seen == as_read(made_up.train.images[rows])


def test_the_guard_sees_what_an_evaluation_sees(config: TrainConfig, device: str) -> None:
    """Every epoch's weights, by a run that ends with that epoch."""
    config = dataclasses.replace(config, lr_max=0.02, select="last")
    result = train(config)
    digits = data.load("digits", limit_train=70)
    held_out = digits.train.hold_out(10, seed=0)[1]
    threat = ThreatModel(epsilon=0.2, mean=digits.mean, std=digits.std)

    def scored(path: Path) -> tuple[float, float]:
        model = models.build("small_cnn", 10, 1, width=4)
        model.load_state_dict(load_file(path))
        with loop.setup.cudnn(search=False):  # as in a run
            scores = evaluate(model.to(device), held_out, threat, steps=(10,))
        return scores.natural, scores.pgd[10]

    last, best = result.metrics[-1], guard.best(result.metrics)
    assert scored(config.out / "model.safetensors") == (last["guard_natural"], last[guard.ROBUST])
    assert scored(config.out / "best.safetensors") == (best["guard_natural"], best[guard.ROBUST])
    assert best["epoch"] == result.row["best_epoch"]
    assert result.row["best_guard_pgd10"] == max(entry[guard.ROBUST] for entry in result.metrics)
    assert result.row["guard_seconds"] == pytest.approx(sum(entry["guard_seconds"] for entry in result.metrics))
    assert (result.row["guard_samples"], result.row["collapsed_epochs"]) == (10, [])


def script(score: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the guard find this accuracy after an epoch."""

    def check(self: guard.Guard, state: TrainState) -> dict:
        found = score(int(state.scheduler.update) // 3)
        return {"guard_natural": 0.8, guard.ROBUST: found, "guard_samples": 10, "guard_seconds": 0.1}

    monkeypatch.setattr(guard.Guard, "check", check)


@pytest.fixture
def fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 2 is the best, and epoch 3 falls each time that it is trained."""
    script(lambda epoch: [0.3, 0.5, 0.1, 0.4, 0.45][epoch - 1], monkeypatch)


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)


def weights(folder: Path, name: str = "model") -> dict:
    return load_file(folder / f"{name}.safetensors")


def at_epoch(config: TrainConfig, epoch: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted behind an epoch."""
    with monkeypatch.context() as patch:
        interrupt_at(3 * epoch + 1, patch)
        with pytest.raises(KeyboardInterrupt):
            train(dataclasses.replace(config, out=folder))
    return folder


def test_training_goes_on_and_the_best_weights_are_taken(
    config: TrainConfig, fall: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(OverfittingWarning, match="epoch 3") as said:
        result = train(config)
    assert len([one for one in said if one.category is OverfittingWarning]) == 1
    second = at_epoch(config, 2, tmp_path / "second", monkeypatch)
    assert same(weights(config.out), checkpoint(second)["model"])
    assert same(weights(config.out), weights(config.out, "best"))
    assert same({name: value.cpu() for name, value in result.model.state_dict().items()}, weights(config.out))
    assert not same(weights(config.out), checkpoint(config.out)["model"])
    row = Run.load(config.out).row
    assert (row["selected"], row["selected_epoch"], row["best_epoch"], row["epochs"]) == ("best", 2, 2, 5)
    assert (row["collapsed_epochs"], row["best_guard_pgd10"], row["rollbacks"]) == ([3], 0.5, 0)
    assert not (config.out / "best.pt").exists()


@pytest.mark.filterwarnings("ignore::freefast.OverfittingWarning")
def test_the_run_ends(config: TrainConfig, fall: None) -> None:
    config = dataclasses.replace(config, on_collapse="stop")
    result = train(config)
    assert [entry["epoch"] for entry in result.metrics] == [1, 2, 3]
    assert result.row["epochs"] == 3
    assert RunFolder(config.out).state(config) == "finished"
    assert train(config, resume=True).row == result.row
    assert len(without_time(config.out)) == 3
    (config.out / "report.html").unlink()
    assert RunFolder(config.out).state(config) == "trained"


@pytest.mark.filterwarnings("ignore::freefast.OverfittingWarning")
def test_a_rollback_goes_on_from_the_best_epoch_with_half_the_alpha(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as a run that stopped behind epoch 2 and was told another alpha."""
    config = dataclasses.replace(config, on_collapse="rollback", delta_init="previous")
    scores = iter([0.3, 0.5, *[0.3, 0.5, 0.1, 0.4, 0.4, 0.45], *[0.4, 0.4, 0.45]])
    script(lambda _: next(scores), monkeypatch)
    by_hand = at_epoch(config, 2, tmp_path / "by hand", monkeypatch)
    settings = json.loads((by_hand / "config.json").read_text())
    assert settings["alpha"] == 0.25
    (by_hand / "config.json").write_text(json.dumps(settings | {"alpha": 0.125}))
    result = train(config)
    assert [entry["epoch"] for entry in result.metrics] == [1, 2, 3, 3, 4, 5]
    assert result.metrics[2]["collapse"] == {"best_epoch": 2, "best": 0.5, "now": 0.1, "then": "rollback"}
    assert (result.row["rollbacks"], result.row["collapsed_epochs"], result.row["epochs"]) == (1, [3], 5)

    train(dataclasses.replace(config, alpha=0.125, out=by_hand), resume=True)

    ours, other = checkpoint(config.out), checkpoint(by_hand)
    assert (ours.pop("lines"), other.pop("lines")) == (6, 5)
    assert same(ours, other)
    assert without_time(config.out)[3:] == without_time(by_hand)[2:]


@pytest.mark.filterwarnings("ignore::freefast.OverfittingWarning")
@pytest.mark.parametrize("batch", [3, 8, 10, 15])
@pytest.mark.parametrize(
    "changes",
    [
        {"on_collapse": "rollback", "delta_init": "previous"},
        {"on_collapse": "rollback", "weight_average": 0.9, "resize_from": 6, "resize_epochs": 3},
        {**OPEN, "on_collapse": "rollback", "method": "pgd", "pgd_steps": 2, "alpha": 0.1},
        {"on_collapse": "continue", "select": "last"},
    ],
    ids=str,
)
def test_an_interrupted_run_that_fell_goes_on_to_the_same_bits(
    config: TrainConfig, fall: None, changes: dict, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 3 falls each time it is trained: four times, then the run ends."""
    monkeypatch.setattr(loop.results, "finish", lambda *_: {})
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: None)
    config = dataclasses.replace(config, lr_max=0.1, **changes)
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    train(whole)
    with monkeypatch.context() as patch:
        interrupt_at(batch, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    train(config, resume=True)
    epochs = [1, 2, 3, 3, 3, 3] if config.on_collapse == "rollback" else [1, 2, 3, 4, 5]
    assert [entry["epoch"] for entry in without_time(config.out)] == epochs
    assert without_time(config.out) == without_time(whole.out)
    assert same(checkpoint(config.out), checkpoint(whole.out))
    for name in ("model", "best"):
        assert same(weights(config.out, name), weights(whole.out, name))


def test_the_test_set_chooses_where_it_is_asked_to(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, select="report", eval_every=2, curve_steps=(1, 3), lr_max=0.02, seed=1)
    with pytest.warns(EvaluationWarning, match="select: report takes the epoch that is best on the test set"):
        result = train(config)
    scores = {entry["epoch"]: entry["pgd3"] for entry in result.metrics if "pgd3" in entry}
    assert set(scores) == {2, 4, 5}
    chosen = max(scores, key=lambda epoch: scores[epoch])
    assert (result.row["selected"], result.row["selected_epoch"]) == ("report", chosen)
    content = checkpoint(config.out if chosen == 5 else at_epoch(config, chosen, tmp_path / "chosen", monkeypatch))
    assert same(weights(config.out), content["model"])


def test_without_a_guard_the_last_weights_are_taken(config: TrainConfig) -> None:
    result = train(dataclasses.replace(config, guard_samples=0))
    assert (result.row["selected"], result.row["selected_epoch"]) == ("last", 5)
    assert not {name for name in result.row if "guard" in name or "best" in name}
    assert not any("guard" in name for entry in result.metrics for name in entry)
    assert same(weights(config.out), checkpoint(config.out)["model"])
    assert not (config.out / "best.safetensors").exists()


def test_the_guard_changes_nothing_in_training(config: TrainConfig, tmp_path: Path) -> None:
    """A run on the others alone, as a data set of their own, has the same bits."""
    digits = data.load("digits", limit_train=70)
    rows, _ = digits.train.hold_out(10, seed=0)
    others = Split(images=digits.train.images[rows], labels=digits.train.labels[rows])
    train(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.setup, "make_data", lambda _: dataclasses.replace(digits, train=others))
        train(dataclasses.replace(config, guard_samples=0, out=tmp_path / "alone"))
    assert same(checkpoint(config.out), checkpoint(tmp_path / "alone"))


def test_without_a_guard_the_evaluations_tell_of_a_fall() -> None:
    """As the report's run of 90 epochs would have been told of: its own accuracies around epoch 86."""
    config = TrainConfig(method="fast", eval_every=1, curve_steps=(50,), on_collapse="stop")
    history = []
    told = []
    for epoch, accuracy in ((84, 0.431), (85, 0.434), (86, 0.103), (87, 0.001), (88, None)):
        history.append({"epoch": epoch} | ({} if accuracy is None else {"pgd50": accuracy}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history[-1] |= guard.judge(history, config)
        told += [(epoch, str(warning.message)) for warning in caught]
    assert [epoch for epoch, _ in told] == [86]
    assert "PGD-50 on the test set fell from 43.4% in epoch 85 to 10.3%: training goes on" in told[0][1]
    assert history[2]["collapse"] == {"best_epoch": 85, "best": 0.434, "now": 0.103, "then": "continue"}


def test_a_fall_in_the_last_epoch_is_told_by_the_evaluation_after_training(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, guard_samples=0, eval_every=2, curve_steps=(2,))
    monkeypatch.setattr(loop, "_evaluated", lambda run, epoch, progress: {"pgd2": 1.0} if epoch == 4 else {})
    with pytest.warns(OverfittingWarning, match=r"epoch 5: catastrophic overfitting: PGD-2 .* the run has ended"):
        row = train(config).row
    assert not any("collapse" in entry for entry in Run.load(config.out).metrics)
    assert row["collapse"] == {"best_epoch": 4, "best": 1.0, "now": row["pgd2"], "then": "continue"}
    (fall,) = reporting.falls.falls(Run.load(config.out))
    assert (fall["epoch"], fall["best_epoch"]) == (5, 4)
    assert "<h2>Catastrophic overfitting</h2>" in (config.out / "report.html").read_text(encoding="utf-8")


def test_the_end_says_nothing_where_there_is_nothing_to_compare() -> None:
    plain = TrainConfig(method="fast", curve_steps=())
    assert guard.judge_end([{"epoch": 1}], plain, {"pgd10": 0.1}) == {}
    assert guard.judge_end([], plain, {"pgd10": 0.1}) == {}
    seen = [{"epoch": 1, "pgd10": 0.5}, {"epoch": 2, guard.ROBUST: 0.5}]
    assert guard.judge_end(seen, TrainConfig(method="fast"), {"pgd10": 0.1}) == {}  # the guard has seen it
