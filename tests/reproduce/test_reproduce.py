"""The queue: what is run, what is kept, where it stops, what it refuses; and what is written of it."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small
import torch
from filelock import FileLock

from freefast import UserError, reporting
from freefast.cli import main
from freefast.reproduce import figures, queue
from freefast.reproduce.config import ReproduceConfig
from freefast.reproduce.contents import FIGURES, TABLES
from freefast.reproduce.evaluated import departures
from freefast.reproduce.queue import Queue
from freefast.training import loop
from freefast.training.captured import CapturedStep
from freefast.training.run_folder import RunFolder

FREE, FAST = "free-preactresnet18-m8-e90", "fast-preactresnet18-128-a10-e90"
ONLY = ["--only", "table-7.1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished reproduction of two runs, which nothing may change."""
    out = tmp_path_factory.mktemp("reproduce") / "out"
    assert small.reproduce(*ONLY, "figure-5", "--out", str(out)) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("trains")

    monkeypatch.setattr(CapturedStep, "__call__", refused)


def test_what_is_written(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} - {".lock"} == {
        "reproduce.json", "results.json", "report.html", "runs", "tables", "figures",
    }  # fmt: skip
    assert {path.name for path in (finished / "runs").iterdir()} == {FREE, FAST}
    assert {path.name for path in (finished / "tables").iterdir()} == {"table-7.1.md", "table-7.1.csv"}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "figure-5.png", "figure-5.svg", "time_accuracy.png", "time_accuracy.svg",
    }  # fmt: skip
    summary = json.loads((finished / "results.json").read_text(encoding="utf-8"))["summary"]
    assert (summary["left"], summary["failures"]) == ([], {})


def test_everything_says_its_scale(finished: Path) -> None:
    said = "Scale tiny, which is not the report's"
    with open(finished / "tables" / "table-7.1.csv", encoding="utf-8", newline="") as file:
        assert all(said in line["note"] for line in csv.DictReader(file))
    for name in ("tables/table-7.1.md", "results.json"):
        assert said in (finished / name).read_text(encoding="utf-8")
    for name in ("report.html", f"runs/{FREE}/report.html", f"runs/{FAST}/report.html"):
        page = (finished / name).read_text(encoding="utf-8")
        assert said in page.replace("&#x27;", "'")
    page = (finished / "report.html").read_text(encoding="utf-8")
    for heading in ("<h2>Table of section 7.1</h2>", "<h2>Figure 5</h2>"):
        assert heading in page


def test_the_page_shows_attacked_images_and_loss_surfaces(tmp_path: Path) -> None:
    assert small.reproduce("--only", "figure-3", "--out", str(tmp_path / "out")) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page)[:4] == ["Results", "Figure 3", "Adversarial examples", "Loss surface"]
    assert page.count('src="data:image/png;base64,') == 3


def test_epsilon_and_steps_are_in_the_data_sets_proportion(finished: Path) -> None:
    config = json.loads((finished / "runs" / FAST / "config.json").read_text(encoding="utf-8"))
    assert (config["epsilon"], config["alpha"]) == (0.2, 0.25)


def test_again_it_trains_nothing(copy: Path, no_training: None, capsys: pytest.CaptureFixture) -> None:
    before = small.numbers(copy)
    shutil.rmtree(copy / "tables")
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    assert small.numbers(copy) == before
    out = capsys.readouterr().out
    assert "ours, best (peeks)" in out
    assert out.replace("\n", " ").count("which its row does not show") == 1
    assert "left:" not in out


def test_a_run_that_was_evaluated_otherwise_is_evaluated_again(
    finished: Path, copy: Path, no_training: None, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", str(copy / "runs" / FAST), "--steps", "10", "--restarts", "5"]) == 0
    capsys.readouterr()
    assert small.reproduce(*ONLY, "--budget-minutes", "0", "--out", str(copy)) == 0
    told = capsys.readouterr()
    assert f"left: {FAST}: go on" in told.out
    assert "ours: trained" in told.out
    assert "warning" not in told.err
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    told = capsys.readouterr()
    line = f"warning: {FAST}: evaluated again by its own settings: its results have restarts 5, not 1, no PGD-50\n"
    assert told.err.count(line) == told.err.count("warning") == 1
    assert "left:" not in told.out
    assert small.numbers(copy) == small.numbers(finished)
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("restarts", 5, "restarts 5, not 1"),
        ("evaluated_in", "half-bf16", "evaluated_in half-bf16, not fp32"),
        ("epsilon", 0.1, "epsilon 0.1, not 0.2"),
        ("samples", None, "samples None, not 10"),
        ("natural", None, "no natural accuracy"),
        ("pgd50", None, "no PGD-50"),
    ],
)
def test_what_says_that_a_row_is_of_another_evaluation(key: str, value: object, said: str, copy: Path) -> None:
    run = RunFolder(copy / "runs" / FAST).read_config()
    assert departures(run, 10) == []
    path = run.out / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["rows"][-1][key] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    assert departures(run, 10) == [said]


def test_more_steps_of_the_same_evaluation_are_kept(copy: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(copy / "runs" / FAST), "--steps", "3"]) == 0
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    assert "evaluated again" not in capsys.readouterr().err
    assert {"pgd3", "pgd50"} <= set(reporting.results.read(copy / "runs" / FAST).rows[-1])


def test_another_table_keeps_the_runs_that_are_there(copy: Path, capsys: pytest.CaptureFixture) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (copy / "runs").glob("*/checkpoint.pt")}
    assert small.reproduce("--only", "table-6.1", "--out", str(copy)) == 0
    runs = {path.name for path in (copy / "runs").iterdir()}
    assert runs == {FREE, FAST, *TABLES["table-6.1"]}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    page = (copy / "report.html").read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[1:4] == ["Table of section 6.1", "Table of section 7.1", "Figure 5"]
    rows = json.loads((copy / "results.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(runs)
    assert "left:" not in capsys.readouterr().out


def test_a_report_of_its_runs(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = (copy / "results.json").read_bytes()
    assert main(["report", str(copy), "--no-pictures"]) == 2
    assert f"--out: {copy} holds a speedrun or a reproduction, wanted another folder" in capsys.readouterr().err
    assert (copy / "results.json").read_bytes() == before
    assert main(["report", str(copy), "--no-pictures", "--out", str(tmp_path / "own")]) == 0
    assert [row["setting"] for row in reporting.results.read(tmp_path / "own").rows] == ["alpha=0.25", "m=8"]


def test_a_report_of_its_runs_names_them_and_the_scale(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Two runs of one method and setting, of other batches."""
    again = shutil.copytree(copy / "runs" / FAST, copy / "runs" / "fast-again")
    content = json.loads((again / "results.json").read_text(encoding="utf-8"))
    content["rows"][-1]["batch_size"] = 64
    (again / "results.json").write_text(json.dumps(content), encoding="utf-8")
    assert main(["report", str(copy), "--no-pictures", "--out", str(tmp_path / "own")]) == 0
    said = "Scale tiny, which is not the report's"
    told = capsys.readouterr().out
    text = (tmp_path / "own" / "table.md").read_text(encoding="utf-8")
    for name, batch in ((FAST, 32), ("fast-again", 64)):
        assert f"| {name} | fast | alpha=0.25 | {batch} |" in text
        assert re.search(rf"^{name} +fast +alpha=0.25 +{batch} ", told, re.MULTILINE)
    assert text.startswith(said)
    assert told.replace("\n", " ").count(said) == 1


def test_the_note_stays_on_every_page_of_the_runs(copy: Path, tmp_path: Path) -> None:
    said = "Scale tiny, which is not the report&#x27;s"
    assert main(["report", str(copy), "--no-pictures", "--out", str(tmp_path / "own")]) == 0
    assert main(["report", str(copy / "runs" / FAST), "--no-pictures"]) == 0
    assert main(["evaluate", str(copy / "runs" / FREE), "--steps", "1"]) == 0
    for page in (tmp_path / "own", copy / "runs" / FAST, copy / "runs" / FREE):
        assert said in (page / "report.html").read_text(encoding="utf-8")


def test_a_device_that_is_not_there_changes_nothing(copy: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert small.reproduce(*ONLY, "--device", "cuda:99", "--out", str(copy)) == 2
    assert "cuda:99" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "checkpoint.pt"])
def test_a_finished_run_that_cannot_be_read_is_named_and_the_others_are_shown(
    name: str, copy: Path, no_training: None, capsys: pytest.CaptureFixture
) -> None:
    (copy / "runs" / FAST / name).write_text("garbage")
    assert small.reproduce("--only", "table-7.1", "--out", str(copy)) == 2
    told = capsys.readouterr()
    assert f"first {FAST}: {copy / 'runs' / FAST / name}: " in told.err
    assert "left:" not in told.out
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "<h2>Runs that failed</h2>" in page
    assert f"delete {copy / 'runs' / FAST} to begin it anew" in page
    results = reporting.results.read(copy)
    assert [row["method"] for row in results.rows] == ["free"]
    assert list(results.summary["failures"]) == [FAST]


def test_what_earlier_calls_left_is_left(copy: Path, capsys: pytest.CaptureFixture) -> None:
    assert small.reproduce("--only", "table-7.2", "--budget-minutes", "0", "--out", str(copy)) == 0
    assert "left: f" in capsys.readouterr().out
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    assert "left:" not in capsys.readouterr().out
    assert set(reporting.results.read(copy).summary["left"]) == set(TABLES["table-7.2"])


def test_a_budget_of_nothing_leaves_everything(
    tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    drawn = []
    monkeypatch.setattr(figures, "write", lambda name, *_: drawn.append(name))
    monkeypatch.setattr(reporting.report, "write", lambda *_, **__: None)
    assert small.reproduce("--budget-minutes", "0", "--out", str(tmp_path / "out")) == 0
    out = capsys.readouterr().out
    assert "left: free-preactresnet18-m2-e45, " in out
    assert "go on with the same command" in out
    assert "ours: waiting" in out
    assert {path.stem for path in (tmp_path / "out" / "tables").iterdir()} == set(TABLES)
    assert drawn == list(FIGURES)


@pytest.mark.parametrize("asked", [5, 8, 12])
def test_a_spent_budget_stops_between_epochs(
    asked: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """asked: times that the queue looks at the clock until its time is over."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        answers: Iterator[bool] = iter([False] * (asked - 1) + [True] * 100)
        patch.setattr(Queue, "_is_spent", lambda self: next(answers))
        assert small.reproduce(*ONLY, "--out", str(out)) == 0
    assert "left: " in capsys.readouterr().out
    epochs = sum(len((run / "metrics.jsonl").read_text().splitlines()) for run in (out / "runs").iterdir())
    # a run asks before it begins, before each of its 6 epochs and before its evaluation
    assert epochs == {5: 3, 8: 6, 12: 8}[asked]
    assert small.reproduce(*ONLY, "--out", str(out)) == 0
    assert small.numbers(out) == small.numbers(finished)


def test_an_interrupt_says_how_to_go_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call, calls = CapturedStep.__call__, iter(range(100))

    def interrupted(self: CapturedStep, count: int) -> None:
        if next(calls) == 15:
            raise KeyboardInterrupt
        call(self, count)

    with monkeypatch.context() as patch:
        patch.setattr(CapturedStep, "__call__", interrupted)
        assert small.reproduce(*ONLY, "--out", str(tmp_path / "out")) == 130
    assert "go on with: the same command" in capsys.readouterr().err
    assert small.reproduce(*ONLY, "--out", str(tmp_path / "out")) == 0
    assert small.numbers(tmp_path / "out") == small.numbers(finished)


def half_created(run: Path) -> None:
    """Killed before the first checkpoint."""
    for path in run.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    (run / "metrics.jsonl").write_text("")
    (run / ".checkpoint.pt.part").write_bytes(b"PK\x03")


def without_settings(run: Path) -> None:
    """Killed before config.json."""
    shutil.rmtree(run)
    run.mkdir()
    (run / ".config.json.part").write_text('{"meth')


def half_a_line(run: Path) -> None:
    """Killed while an epoch that the checkpoint does not know was written down."""
    (run / "results.json").unlink()
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"epoch": 7, "train_lo')


def half_a_page(run: Path) -> None:
    """Killed while the last file was written."""
    page = run / "report.html"
    page.write_bytes(page.read_bytes()[:1000])
    (run / "curves.png").write_bytes(b"\x89PNG")


def without_pictures(run: Path) -> None:
    """Killed behind results.json."""
    (run / "report.html").unlink()
    (run / "curves.png").unlink()


@pytest.mark.parametrize("damage", [half_created, without_settings, half_a_line, half_a_page, without_pictures])
def test_what_a_kill_leaves_is_gone_on_with(damage: object, finished: Path, copy: Path) -> None:
    damage(copy / "runs" / FAST)
    assert small.reproduce(*ONLY, "--out", str(copy)) == 0
    assert small.numbers(copy) == small.numbers(finished)


def test_a_broken_run_does_not_keep_the_others_from_theirs(copy: Path, capsys: pytest.CaptureFixture) -> None:
    (copy / "runs" / FAST / "checkpoint.pt").write_bytes(b"nothing")
    shutil.rmtree(copy / "runs" / FREE)
    assert small.reproduce(*ONLY, "--out", str(copy)) == 2
    said = capsys.readouterr().err
    assert f"first {FAST}:" in said
    assert f"delete {copy / 'runs' / FAST} to begin it anew" in said
    assert (copy / "runs" / FREE / "results.json").exists()


def test_two_processes_do_not_share_a_folder(copy: Path, capsys: pytest.CaptureFixture) -> None:
    with FileLock(copy / ".lock"):
        assert small.reproduce(*ONLY, "--out", str(copy)) == 2
    assert f"--out: another process works in {copy}" in capsys.readouterr().err


def test_settings_that_are_no_object(copy: Path, capsys: pytest.CaptureFixture) -> None:
    (copy / "reproduce.json").write_text("[]")
    assert small.reproduce(*ONLY, "--out", str(copy)) == 2
    assert "reproduce.json: wanted an object, got []" in capsys.readouterr().err


def test_half_written_pages_and_settings_are_written_again(finished: Path, copy: Path) -> None:
    """They are made anew at every end of the queue."""
    for path in (copy / "report.html", *copy.glob("tables/*"), *copy.glob("figures/*")):
        path.write_bytes(path.read_bytes()[:9])
    (copy / ".reproduce.json.part").write_text("{")
    assert small.reproduce(*ONLY, "figure-5", "--out", str(copy)) == 0
    for path in (*finished.glob("tables/*"), *finished.glob("figures/*.png")):
        assert (copy / path.relative_to(finished)).read_bytes() == path.read_bytes()
    assert (copy / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "small"], "--scale: .* was made with tiny, not small: give another --out"),
        (["--seed", "1"], "--seed: .* was made with 0, not 1"),
        (["--dataset", "fake"], "--dataset: .* was made with digits, not fake"),
        (["--precision", "fp32"], "--precision: .* was made with auto, not fp32"),
        (["--only", "table-9"], "only: wanted some of table-5.1"),
        (["--budget-minutes", "-1"], "budget_minutes: wanted a number of at least 0"),
        (["--precision", "half"], "precision: wanted one of fp32"),
    ],
)
def test_other_settings_in_the_same_folder(
    options: list[str], message: str, copy: Path, no_training: None, capsys: pytest.CaptureFixture
) -> None:
    before = small.numbers(copy)
    assert small.reproduce(*options, "--out", str(copy)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert small.numbers(copy) == before


def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "thesis.tex").touch()
    assert small.reproduce("--out", str(tmp_path)) == 2
    assert "holds something else than a reproduction" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_data_that_is_not_there_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    options = ["--dataset", "imagefolder", "--data-root", str(tmp_path / "nowhere")]
    assert small.reproduce(*options, "--out", str(out)) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "error",
    [UserError("the loss is not finite in epoch 2"), torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated")],
)
def test_a_run_that_fails_does_not_keep_the_others_from_theirs(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The report's Free log that ended in NaN would be such a run."""
    train = loop.train

    def failing(config: object, **options: object) -> object:
        if config.method == "fast":
            raise error
        return train(config, **options)

    monkeypatch.setattr(queue, "train", failing)
    assert small.reproduce(*ONLY, "--out", str(tmp_path / "out")) == 2
    told = capsys.readouterr()
    assert f"failed: 1 of the runs, first {FAST}: {str(error).splitlines()[0]}" in told.err
    assert "ours: failed" in told.out
    assert (tmp_path / "out" / "runs" / FREE / "results.json").exists()


def test_the_shortest_run_is_the_first() -> None:
    config = ReproduceConfig(dataset="digits")
    runs = config.runs()
    order = list(Queue(runs, 0, 10_000).runs)
    assert order[0] == "free-preactresnet18-m2-e45"  # 90 passes, as Fast's 45 epochs have, and named first
    assert set(order[-2:]) == {"free-preactresnet18-m8-e90", "free-resnet50-m8-e90"}
    assert len(order) == 12
