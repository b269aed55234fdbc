"""`freefast speedrun`: time, accuracy and verdict of a recipe over seeds."""

import dataclasses
import json
import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from freefast import TrainConfig, recipes, train
from freefast.cli import main
from freefast.reporting import results
from freefast.speedrun import Speedrun, _departures
from freefast.training.captured import CapturedStep
from freefast.training.run_folder import RunFolder

SMALL = [
    "--dataset", "fake", "--model", "small_cnn", "--width", "4", "--limit-train", "70", "--limit-test", "20",
    "--batch-size", "32", "--epochs", "2", "--eval-steps", "2", "--restarts", "2", "--out", "fast",
]  # fmt: skip
COMMAND = ["speedrun", *SMALL, "--seeds", "3", "5"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls_until(last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come in the given step of the process."""
    call, calls = CapturedStep.__call__, iter(range(1, 10**6))

    def interrupted(self: CapturedStep, count: int) -> None:
        if next(calls) == last:
            raise KeyboardInterrupt
        call(self, count)

    monkeypatch.setattr(CapturedStep, "__call__", interrupted)


def test_a_run_a_seed_and_one_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*COMMAND, "--resize-from", "24", "--resize-epochs", "1", "--weight-average", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "not tried: dataset fake, model small_cnn of width 4, no PGD-50, 2 restarts, " in out
    assert "20 test images, 2 seeds" in out
    assert {path.name for path in (folder / "fast").iterdir()} == {
        "seed3", "seed5", "results.json", "table.md", "table.csv",
    }  # fmt: skip
    rows = results.read(folder / "fast").rows
    assert [row["seed"] for row in rows] == [3, 5]
    for row in rows:
        run = RunFolder(folder / "fast" / f"seed{row['seed']}")
        assert run.read_config().weight_average == 0.9
        entries = run.read_metrics()
        assert row["seconds"] == sum(entry["seconds"] for entry in entries) + entries[0]["setup_seconds"]
        own = results.read(run.path).rows[0]
        assert {name: row[name] for name in own} == own
    summary = json.loads((folder / "fast" / "results.json").read_text(encoding="utf-8"))["summary"]
    for name in ("seconds", "natural", "pgd2"):
        values = [row[name] for row in rows]
        assert summary["mean"][name] == pytest.approx(sum(values) / 2)
        assert summary["spread"][name] == pytest.approx(statistics.stdev(values))
    assert summary["met"] is False
    lines = (folder / "fast" / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| Seed | Training (s) | Natural | PGD-2 |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["3", "5", "mean", "std"]


def test_a_seeds_run_is_the_run_that_train_makes(folder: Path) -> None:
    assert main(COMMAND) == 0
    run = RunFolder(folder / "fast" / "seed5")
    train(dataclasses.replace(run.read_config(), out=Path("alone")))
    one, other = (load_file(path / "model.safetensors") for path in (run.path, folder / "alone"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", [2, 8, 12])  # of the rehearsal, then of the first and the second seed, 3 and 6 each
def test_interrupted_it_keeps_what_is_finished(
    step: int, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        calls_until(step, patch)
        assert main(COMMAND) == 130
    begun = (folder / "fast").exists()
    assert ("go on with: the same command with --resume" in capsys.readouterr().err) == begun
    kept = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("fast/seed*/results.json")}
    assert len(kept) == step // 10
    assert not (folder / "fast" / "results.json").exists()
    if begun:
        assert main(COMMAND) == 2
        assert "holds results: give --resume, --overwrite" in capsys.readouterr().err
    assert main([*COMMAND, "--resume"]) == 0
    for name, written in kept.items():
        assert (folder / "fast" / name / "results.json").stat().st_mtime_ns == written
    for row in results.read(folder / "fast").rows:
        entries = RunFolder(folder / "fast" / f"seed{row['seed']}").read_metrics()
        assert ["setup_seconds" in entry for entry in entries] == [True, False]  # timed from its beginning


def test_a_run_that_was_interrupted_in_its_evaluation_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("freefast.training.loop.evaluate", interrupted)
        assert main(COMMAND) == 130
    metrics = (folder / "fast" / "seed3" / "metrics.jsonl").read_text(encoding="utf-8")
    assert main([*COMMAND, "--resume"]) == 0
    assert (folder / "fast" / "seed3" / "metrics.jsonl").read_text(encoding="utf-8") == metrics


def test_finished_runs_are_kept_or_replaced_as_asked(folder: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["speedrun", *SMALL, "--seeds", "3"]
    assert main(command) == 0
    written = (folder / "fast" / "seed3" / "model.safetensors").stat().st_mtime_ns
    assert main([*command, "--resume", "--momentum", "0.8"]) == 2
    assert "holds a run with momentum 0.9, not 0.8" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert (folder / "fast" / "seed3" / "model.safetensors").stat().st_mtime_ns == written
    assert main([*command, "--overwrite"]) == 0
    assert (folder / "fast" / "seed3" / "model.safetensors").stat().st_mtime_ns > written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "seeds: wanted different ones"),
        (["--seeds"], "seeds"),
        (["--seeds", "-1"], "seed"),
        (["--epochs", "0"], "epochs"),
        (["--recipe", "nowhere"], "recipe: wanted a file"),
        (["--seed", "1"], "--seed"),
        (["--resume", "--overwrite"], "--resume: keeps finished runs, cannot --overwrite them"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["speedrun", *SMALL, *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("robust", "seconds", "met"), [(0.45, 60.0, True), (0.4499, 28.0, False), (0.47, 60.1, False)])
def test_the_goal_is_met_by_means(robust: float, seconds: float, met: bool) -> None:
    outcome = Speedrun(rows=[], mean={"pgd50": robust, "seconds": seconds}, spread={}, departures=[])
    assert outcome.met == met
    assert (": met:" in outcome.verdict) == met
    assert not dataclasses.replace(outcome, departures=["5 restarts"]).met


def test_the_recipe_tries_the_goal() -> None:
    config = TrainConfig(**recipes.read("speedrun"))
    assert _departures(config, 3, 10_000) == []
    assert _departures(config, 2, 100) == ["100 test images", "2 seeds"]
    changes = {
        "9 restarts": {"restarts": 9}, "model preactresnet18 of width 32": {"width": 32},
        "epsilon 7/255": {"epsilon": 7 / 255}, "99 training images": {"limit_train": 99},
        "images of 16 pixels": {"image_size": 16},
        "weights chosen by the test set": {"select": "report", "eval_every": 1},
    }  # fmt: skip
    for departure, change in changes.items():
        assert _departures(dataclasses.replace(config, **change), 3, 10_000) == [departure]
