"""`freefast evaluate` of runs, files of weights and functions."""

import csv
import itertools
import sys
from pathlib import Path

import PIL.Image
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from freefast import Verdicts, data, models
from freefast.cli import main
from freefast.commands.subject import of_run
from freefast.evaluation.engine import Engine
from freefast.reporting import results
from freefast.training.run_folder import RunFolder

SMALL = ["--limit-train", "60", "--limit-test", "20", "--width", "4", "--epochs", "1", "--eval-steps", "1", "2"]
DIGITS = ["--limit-test", "20", "--steps", "1", "2"]
MODULE = """
import torch

class Pixels(torch.nn.Module):
    "Ten classes by the first ten pixels; refuses images that are not in [0, 1]."

    def forward(self, x):
        assert 0 <= x.min() and x.max() <= 1
        return x.flatten(1)[:, :10]

class Narrow(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3]

class Pair(torch.nn.Module):
    def forward(self, x):
        return x, x

def wants(something):
    return something

def make():
    return Pixels()

made = Pixels()
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    name = f"classifiers_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the working directory joins it
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", "fast", *SMALL, "--out", str(path)]) == 0
    return path


def module(folder: Path) -> str:
    return f"classifiers_{folder.name}"


@pytest.mark.parametrize("attribute", ["make", "made", "Pixels"])
def test_a_function_a_model_or_a_class(attribute: str, folder: Path) -> None:
    target = f"{module(folder)}:{attribute}"
    assert main(["evaluate", target, *DIGITS, "--out", "scores"]) == 0
    row = results.read(folder / "scores").rows[0]
    assert (row["method"], row["model"], row["dataset"]) == (target, "Pixels", "digits")
    assert {path.name for path in (folder / "scores").iterdir()} == {
        "results.json", "table.md", "table.csv", "classes.csv", "verdicts.npz",
    }  # fmt: skip
    verdicts = Verdicts.load(folder / "scores" / "verdicts.npz")
    assert "| linf 0.2 | 20 |" in (folder / "scores" / "table.md").read_text()
    assert row["natural"] == verdicts.natural().double().mean()
    assert row["pgd2"] == verdicts.robust(2).double().mean()
    with open(folder / "scores" / "classes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["class"] for line in lines] == [str(label) for label in range(10)]
    assert sum(int(line["samples"]) for line in lines) == 20
    share = sum(int(line["samples"]) * float(line["pgd2"]) for line in lines) / 20
    assert share == pytest.approx(row["pgd2"])


def test_the_rule_and_the_ball_are_recorded(folder: Path) -> None:
    options = ["--norm", "l2", "--alpha", "0.3", "--worst-case", "--full", "--restarts", "3", "--attacks", "fgsm"]
    assert main(["evaluate", f"{module(folder)}:make", *DIGITS, *options]) == 0
    (out,) = (folder / "runs").iterdir()
    assert out.name == f"evaluate-{module(folder)}-make"
    row = results.read(out).rows[0]
    wanted = {"norm": "l2", "epsilon": 0.5, "alpha": 0.3, "worst_case": True, "full": True, "restarts": 3}
    assert {name: row[name] for name in wanted} == wanted
    assert row["fgsm"] == Verdicts.load(out / "verdicts.npz").robust("fgsm").double().mean()
    assert "FGSM" in (out / "table.md").read_text()


@pytest.mark.parametrize("kind", ["run", "safetensors of the run", "checkpoint of the run", "own file", "DataParallel"])
def test_the_same_weights_score_the_same(kind: str, run: Path, folder: Path) -> None:
    weights = {"run": run, "safetensors of the run": run / "model.safetensors"}.get(kind, run / "checkpoint.pt")
    options: list[str] = []
    if kind in ("own file", "DataParallel"):
        state: dict[str, Tensor] = torch.load(weights, weights_only=True)["model"]
        weights, options = folder / "weights.pth", ["--model", "small_cnn", "--width", "4"]
        torch.save(
            {"state_dict": {f"module.{name}": t for name, t in state.items()}} if kind != "own file" else state, weights
        )
    assert main(["evaluate", str(weights), *DIGITS, *options, "--out", "scores"]) == 0
    scored, trained = results.read(folder / "scores").rows[0], results.read(run).rows[0]
    for name in ("natural", "pgd1", "pgd2", "epsilon", "dataset"):
        assert scored[name] == trained[name], name


def test_a_run_is_not_written_over(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = (run / "results.json").read_bytes()
    assert main(["evaluate", str(run), "--norm", "l2", "--out", str(run)]) == 2
    assert "holds a run, wanted another folder" in capsys.readouterr().err
    assert (run / "results.json").read_bytes() == before


def test_other_images_for_a_run(run: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    before = (run / "results.json").read_bytes()
    assert main(["evaluate", str(run), "--limit-test", "10"]) == 2
    assert "--limit-test: makes it another evaluation than the run's own: give it an --out" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--limit-test", "10", "--out", "few"]) == 0
    assert results.read(folder / "few").rows[0]["samples"] == 10
    assert results.read(folder / "few").rows[0]["method"] == "fast"
    assert (run / "results.json").read_bytes() == before


def test_a_report_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "report.html").touch()
    assert main(["evaluate", f"{module(folder)}:make", *DIGITS, "--out", "out"]) == 2
    assert "--out: out holds a report, wanted another folder" in capsys.readouterr().err


def test_images_of_another_data_set_are_normalised_as_the_runs(folder: Path) -> None:
    for split, name in itertools.product(("train", "test"), "abcdefghij"):
        (folder / "tree" / split / name).mkdir(parents=True)
        PIL.Image.new("RGB", (32, 32), "red").save(folder / "tree" / split / name / "1.png")
    fake = ["--dataset", "fake", "--limit-train", "10", "--limit-test", "10", "--epochs", "1", "--eval-steps", "1"]
    assert main(["train", "standard", *fake, "--width", "2", "--out", "run"]) == 0
    run = RunFolder(folder / "run")
    other = {"dataset": "imagefolder", "data_root": folder / "tree", "limit_train": None, "limit_test": None}
    subject = of_run(run, run.read_config(), other)
    assert subject.data.name == "imagefolder"
    assert (subject.data.mean, subject.data.std) == ((0.0,) * 3, (1.0,) * 3)
    assert data.load("imagefolder", root=folder / "tree").mean == data.CIFAR10_MEAN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere:make"], "nowhere:make: No module named 'nowhere'"),
        (["MODULE:other"], "has no attribute 'other'"),
        (["MODULE:number"], "wanted a torch.nn.Module, or a function that returns one, got int"),
        (["MODULE:make", "--model", "small_cnn"], "--model: is of a file of weights"),
        (["MODULE:make", "--dataset", "letters"], "dataset: wanted one of digits"),
        (["MODULE:make", "--attacks", "guess"], "guess"),
        (["MODULE:make", "--restarts", "0"], "restarts: wanted at least 1, got 0"),
        (["MODULE:make", "--epsilon", "8"], "epsilon: wanted at most 1"),
        (["MODULE:make", "--norm", "l1"], "l1"),
        (["weights.pt"], "weights.pt is in no run's folder: give its --model"),
        (["weights.pt", "--model", "small_cnn", "--width", "5"], "weights.pt: does not fit small_cnn for digits"),
        (["text.pt", "--model", "small_cnn"], "text.pt: not a file of weights"),
        (["list.pt", "--model", "small_cnn"], "list.pt: holds no weights"),
        (["text.safetensors", "--model", "small_cnn"], "text.safetensors: not safetensors"),
        (["MODULE:Narrow"], "model: wanted logits (8, at least 10) of images (8, 1, 8, 8), got shape (8, 3)"),
        (["MODULE:Pair"], "model: wanted logits"),
        (["MODULE:wants"], "missing 1 required positional argument"),
        ([".:x"], ".:x: "),
        (["MODULE:make", "--seed=-1"], "seed: wanted an int in [0, 2**63), got -1"),
        (["MODULE:make", "--out", "weights.pt"], "--out: weights.pt is a file, wanted a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    path = folder / f"{module(folder)}.py"
    path.write_text(
        path.read_text() + "\nclass Narrow(Pixels):\n    def forward(self, x):\n        return x.flatten(1)[:, :3]\n"
    )
    torch.save(models.build("small_cnn", 10, 1, width=4).state_dict(), folder / "weights.pt")
    torch.save([1], folder / "list.pt")
    for name in ("text.pt", "text.safetensors"):
        (folder / name).write_text("weights")
    before = set(folder.iterdir())
    assert main(["evaluate", *(word.replace("MODULE", module(folder)) for word in arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("freefast: ")
    assert err.count("\n") == 1
    assert message in err
    assert {path for path in folder.iterdir() if path.name != "__pycache__"} == before


def test_it_goes_on_after_an_interrupt(
    run: Path, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", str(run), "--steps", "2", "--batch-size", "4", "--out", "scores"]
    iterate = Engine._iterate
    iterations = 0

    def stopped(self: Engine) -> None:
        nonlocal iterations
        iterations += 1
        if iterations == 5:
            raise KeyboardInterrupt
        iterate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_iterate", stopped)
        patch.setattr("freefast.evaluation.engine._TELL_EVERY", 0.0)
        assert main(command) == 130
    assert "go on with: the same command" in capsys.readouterr().err
    (kept,) = (folder / "scores").iterdir()
    assert kept.name.startswith(".evaluation.pgd.")
    assert main(command) == 0
    assert results.read(folder / "scores").rows[0]["pgd2"] == results.read(run).rows[0]["pgd2"]
    assert not kept.exists()


def test_safetensors_of_another_program(folder: Path) -> None:
    model: nn.Module = models.build("small_cnn", 10, 1, width=4)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "other.safetensors")
    options = ["--model", "small_cnn", "--width", "4", "--normalize", "off", "--out", "scores"]
    assert main(["evaluate", "other.safetensors", *DIGITS, *options]) == 0
