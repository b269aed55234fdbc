"""The command line: exit codes, one line on standard error, files."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from freefast.cli import main
from freefast.reporting import results
from freefast.training.run_folder import RunFolder

SMALL = ["--limit-train", "60", "--limit-test", "20", "--width", "4", "--epochs", "1", "--eval-steps", "1", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "train, evaluate, compare, speedrun, reproduce, report, bench, info"),
        (["fly"], "fly"),
        (["train"], "Missing from freefast train: {standard,free,fast,pgd}"),
        (["train", "slow"], "'slow'"),
        (["train", "fast", "--epsilon", "8/0"], "--epsilon: wanted a number or a fraction such as 8/255"),
        (["train", "fast", "--epsilon=-1"], "epsilon: wanted a finite number of at least 0, got -1"),
        (["train", "fast", "--epochs", "few"], "--epochs"),
        (["train", "fast", "--speed", "3"], "--speed"),
        (["train", "fast", "--replays", "3"], "replays: is of free, got it for fast"),
        (["train", "fast", "--augment", "yes"], "wanted on or off"),
        (["train", "fast", "--dataset", "imagefolder"], "root"),
        (["train", "fast", "--model", "resnet50"], "3 channels"),
        (["train", "fast", "--width", "4", "--model", "wideresnet"], "width"),
        (["train", "fast", "--device", "cuda:99"], "cuda:99"),
        (["train", "fast", "--backend", "triton", "--device", "cpu"], "triton"),
        (["train", "fast", "--resume", "nowhere"], "nowhere holds no run"),
        (["train", "fast", "--resume", "nowhere", "--epochs", "3"], "--resume"),
        (["compare", "--preset", "demo", "--epochs", "3"], "--preset: has settings of its own"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        (["report", "nowhere"], "nowhere holds no run"),
        (["compare", "--methods", "fast", "fast"], "methods: wanted different ones"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("freefast: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out == ""
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", "fast", *SMALL, "--out", str(path)]) == 0
    return path


def saved(content: object) -> bytes:
    """As torch.save writes it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def of_another_batch_size(content: bytes) -> bytes:
    """The run's checkpoint, its lasting perturbation of a smaller batch."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    return saved({**state, "delta": state["delta"][:1]})


@pytest.mark.parametrize(
    ("name", "content", "commands"),
    [
        ("config.json", b"", "evaluate resume report"),
        ("config.json", b"\xff", "evaluate resume report"),
        ("config.json", b"[1]", "evaluate resume report"),
        ("config.json", b'{"method": 5}', "evaluate resume report"),
        ("config.json", b'{"method": "fast", "eval_steps": 5}', "evaluate resume"),
        ("config.json", b'{"method": "fast", "data_root": 5}', "evaluate resume"),
        ("config.json", b'{"method": "fast", "epochs": 2.5}', "evaluate resume"),
        ("metrics.jsonl", b"{", "evaluate resume report"),
        ("metrics.jsonl", b"\xff", "evaluate resume report"),
        ("metrics.jsonl", b"[]\n", "evaluate resume report"),
        ("metrics.jsonl", b'{"epoch": 1}\n', "evaluate resume report"),
        ("metrics.jsonl", b"", "resume"),
        ("checkpoint.pt", b"", "resume"),
        ("checkpoint.pt", b"garbage", "resume"),
        ("checkpoint.pt", saved([1]), "resume"),
        ("checkpoint.pt", saved({"epoch": 1}), "resume"),
        ("checkpoint.pt", of_another_batch_size, "resume"),
        ("model.safetensors", b"", "evaluate"),
        ("model.safetensors", b"garbage", "evaluate"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    name: str, content: bytes | Callable[[bytes], bytes], commands: str, run: Path, folder: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    path = folder / "run" / name
    shutil.copytree(run, path.parent)
    path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))
    arguments = {
        "evaluate": ["evaluate", "run"],
        "resume": ["train", "fast", "--resume", "run"],
        "report": ["report", "run"],
    }
    for command in commands.split():
        capsys.readouterr()
        assert main(arguments[command]) == 2, command
        err = capsys.readouterr().err
        assert err.startswith(f"freefast: run/{name}: ")
        assert "weights_only" not in err  # PyTorch's advice to trust the file
        assert err.count("\n") == 1


def run_process(program: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


def test_a_wrong_environment_is_one_line() -> None:
    ended = run_process("from freefast.cli import main; exit(main(['info']))", ADVKERNELS_BACKEND="fast")
    assert ended.returncode == 2
    assert ended.stderr == ("freefast: ADVKERNELS_BACKEND: wanted one of auto, reference, native, triton, got 'fast'\n")


def test_ctrl_c_during_the_imports_is_one_line() -> None:
    ended = run_process("""
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "torch":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from freefast.cli import main
sys.exit(main(["info"]))
""")
    assert (ended.returncode, ended.stderr) == (130, "freefast: interrupted\n")


def test_help_says_units_and_defaults(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Radius of the l-inf ball, pixel units in [0, 1] (auto: 0.2 for digits, else 8/255)." in text
    assert "--weight-decay FLOAT L2 penalty of SGD. (default: 0.0005)" in text


def test_info_lists_the_backends(capsys: pytest.CaptureFixture) -> None:
    assert main(["info"]) == 0
    assert "reference  available" in capsys.readouterr().out


def test_train_then_evaluate_then_report(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "fast", *SMALL, "--epsilon", "51/255", "--out", "run"]) == 0
    assert "alpha=0.25" in capsys.readouterr().out
    first = results.read(folder / "run").rows[0]
    assert first["epsilon"] == 0.2
    assert {"natural", "pgd1", "pgd2"} < set(first)

    assert main(["train", "fast", *SMALL, "--out", "run"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["train", "free", "--resume", "run"]) == 2
    assert "is a run of fast" in capsys.readouterr().err
    assert main(["train", "fast", "--resume", "run"]) == 0

    (folder / "run" / "results.json").unlink()
    assert main(["evaluate", "run"]) == 0
    again = results.read(folder / "run").rows[0]
    assert {**again, "train_minutes": 0, "epoch_seconds": 0} == {**first, "train_minutes": 0, "epoch_seconds": 0}
    assert main(["evaluate", "run", "--steps", "3"]) == 0
    more = results.read(folder / "run").rows[0]
    assert [name for name in more if name.startswith("pgd")] == ["pgd1", "pgd2", "pgd3"]
    assert {name: more[name] for name in again} == again
    assert main(["evaluate", "run", "--steps", "3", "--restarts", "2"]) == 0
    row = results.read(folder / "run").rows[0]
    assert "pgd3" in row
    assert "pgd1" not in row
    assert row["restarts"] == 2

    assert main(["report", "run", "--out", "summary"]) == 0
    assert {path.name for path in (folder / "summary").iterdir()} == {
        "results.json", "table.md", "table.csv", "curves.png", "report.html", "examples.png", "loss_surface.png",
    }  # fmt: skip
    assert main(["report", "run", "run"]) == 2
    shutil.copytree(folder / "run", folder / "other")
    before = (folder / "run" / "results.json").read_bytes()
    assert main(["report", "run", "other", "--out", "run"]) == 2
    assert main(["report", "other", "--out", "run"]) == 2
    assert "--out: run holds a run" in capsys.readouterr().err
    assert (folder / "run" / "results.json").read_bytes() == before
    assert main(["report", "run", "--out", "run"]) == 0


def headings(page: Path) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


def test_a_report_has_the_pictures_that_can_be_drawn(run: Path, folder: Path) -> None:
    drawn = ["Results", "Training", "Adversarial examples", "Loss surface", "Settings", "Environment"]
    assert headings(run / "report.html") == drawn
    for name in ("one", "two"):
        shutil.copytree(run, folder / name / "fast")
    (folder / "two" / "fast" / "model.safetensors").unlink()
    assert main(["report", "one", "two", "--out", "both"]) == 0
    page = folder / "both" / "report.html"
    assert headings(page) == [*drawn[:2], "Time and robustness", *drawn[2:]]
    assert "fast-2 is not shown: two/fast holds no model.safetensors." in page.read_text(encoding="utf-8")
    assert [path.name for path in (folder / "both").glob("examples*")] == ["examples_fast-1.png"]

    assert main(["report", "two", "--out", "nothing"]) == 0
    assert headings(folder / "nothing" / "report.html") == [name for name in drawn if name != "Loss surface"]
    assert main(["report", "one", "--no-pictures", "--out", "plain"]) == 0
    assert headings(folder / "plain" / "report.html") == ["Results", "Training", "Settings", "Environment"]
    assert not list((folder / "plain").glob("examples*"))


def test_precision_is_trained_evaluated_and_recorded(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "free", *SMALL, "--precision", "half-bf16", "--master-weights", "off", "--out", "run"]) == 0
    assert "half-bf16" in capsys.readouterr().out
    first = results.read(folder / "run").rows[0]
    wanted = {"precision": "half-bf16", "master_weights": False, "loss_scale": "none", "evaluated_in": "half-bf16"}
    assert {name: first[name] for name in wanted} == wanted
    assert main(["evaluate", "run", "--precision", "fp32"]) == 0
    assert results.read(folder / "run").rows[0]["evaluated_in"] == "fp32"
    assert "half-bf16, no masters, evaluated in fp32" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", "run"]) == 0
    assert results.read(folder / "run").rows[0] == first
    own = ["--precision", "half-bf16", "--evaluate-in", "fp32", "--overwrite", "--out", "run"]
    assert main(["train", "fast", *SMALL, *own]) == 0
    second = results.read(folder / "run").rows[0]
    assert (second["precision"], second["evaluated_in"]) == ("half-bf16", "fp32")
    assert main(["evaluate", "run"]) == 0
    assert results.read(folder / "run").rows[0] == second
    assert main(["train", "fast", "--precision", "fp8"]) == 2
    assert "precision" in capsys.readouterr().err


def test_compare_goes_on_and_writes_one_table(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["compare", *SMALL, "--methods", "standard", "fast", "--out", "all"]
    with monkeypatch.context() as patch:
        patch.setattr("freefast.training.setup.fast_step", interrupted)
        assert main(command) == 130
    assert "go on with: the same command" in capsys.readouterr().err
    weights = {method: folder / "all" / method / "model.safetensors" for method in ("standard", "fast")}
    assert not (folder / "all" / "results.json").exists()

    written = {method: path.stat().st_mtime_ns for method, path in weights.items()}
    assert main(command) == 0
    out = capsys.readouterr().out
    rows = results.read(folder / "all").rows
    assert [(row["method"], row["setting"]) for row in rows] == [("standard", ""), ("fast", "alpha=0.25")]
    assert all(row["method"] in out for row in rows)
    assert weights["standard"].stat().st_mtime_ns == written["standard"]  # a finished run is kept
    assert weights["fast"].stat().st_mtime_ns > written["fast"]
    assert {path.name for path in (folder / "all").iterdir()} == {
        "standard", "fast", "results.json", "table.md", "table.csv", "curves.png", "report.html",
        "examples_standard.png", "examples_fast.png", "loss_surface.png", "time_accuracy.png", "time_accuracy.svg",
    }  # fmt: skip

    assert main([*command, "--momentum", "0.8"]) == 2
    assert "all/standard holds a run with momentum 0.9, not 0.8" in capsys.readouterr().err
    assert main([*command, "--momentum", "0.8", "--methods", "standard", "--overwrite"]) == 0
    assert weights["standard"].stat().st_mtime_ns > written["standard"]
    assert main(["report", "all"]) == 0
    assert [row["method"] for row in results.read(folder / "all").rows] == ["standard", "fast"]


def test_compare_goes_on_with_an_interrupted_run_that_was_evaluated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["compare", *SMALL, "--epochs", "2", "--methods", "fast", "--out", "all"]
    save = RunFolder.save_checkpoint

    def save_the_first(self: RunFolder, content: dict) -> None:
        save(self, content)
        if content["epoch"] == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", save_the_first)
        assert main(command) == 130
    assert main(["evaluate", "all/fast"]) == 0
    assert results.read(folder / "all" / "fast").rows[0]["epochs"] == 1
    assert main(command) == 0
    assert results.read(folder / "all").rows[0]["epochs"] == 2


def test_a_preset_replaces_its_own_runs_only(run: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(run, folder / "all" / "fast")
    before = (folder / "all" / "fast" / "model.safetensors").read_bytes()
    assert main(["compare", "--preset", "demo", "--out", "all"]) == 2
    assert "all/fast holds a run with" in capsys.readouterr().err
    assert (folder / "all" / "fast" / "model.safetensors").read_bytes() == before
    assert [path.name for path in (folder / "all").iterdir()] == ["fast"]


def interrupted(*arguments: object, **settings: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_leaves_a_usable_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "freefast", "train", "fast", "--epochs", "10000", "--width", "4", "--out", "run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.endswith("freefast: interrupted - go on with: freefast train fast --resume run\n")
    assert "Traceback" not in err
    epoch = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["epoch"]
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert len(lines) - epoch in (0, 1)
    assert main(["evaluate", str(tmp_path / "run"), "--steps", "1"]) == 0
    assert results.read(tmp_path / "run").rows[0]["epochs"] == len(lines)
