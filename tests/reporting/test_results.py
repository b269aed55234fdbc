import json
import os
import threading

import pytest

from freefast.errors import UserError
from freefast.reporting import Run, results

ROW = {"method": "fast", "model": "small", "dataset": "digits", "setting": "alpha=0.25", "epsilon": 0.2} | {
    "natural": 0.99, "pgd10": 0.7, "pgd20": None, "epochs": 2, "train_minutes": 0.1, "epoch_seconds": 3.0,
}  # fmt: skip
ENVIRONMENT = {"device": "cpu", "commit": None}
METRICS = [
    {"epoch": 1, "train_loss": 2.1, "train_accuracy": 0.3, "learning_rate": 0.1, "seconds": 3.0},
    {"epoch": 2, "train_loss": 1.1, "train_accuracy": 0.6, "learning_rate": 0.0, "seconds": 3.1, "pgd10": 0.7},
]


@pytest.fixture
def folder(tmp_path):
    """A run folder as the trainer leaves it."""
    folder = tmp_path / "fast-run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": "fast", "epsilon": 0.2}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in METRICS))
    (folder / "results.json").write_text(json.dumps({"rows": [ROW], "environment": ENVIRONMENT}))
    return folder


def test_write_is_plain_json(tmp_path):
    path = results.write(tmp_path, [ROW], ENVIRONMENT)
    assert path == tmp_path / "results.json"
    assert json.loads(path.read_text()) == {"rows": [ROW], "environment": ENVIRONMENT}
    assert os.listdir(tmp_path) == ["results.json"]


def test_what_was_written_reads_back(tmp_path):
    results.write(tmp_path, [ROW, {**ROW, "method": "free"}], ENVIRONMENT)
    content = results.read(tmp_path)
    assert content.rows == [ROW, {**ROW, "method": "free"}]
    assert content.environment == ENVIRONMENT


def test_nan_becomes_null(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    path = results.write(tmp_path, [{**ROW, "natural": float("nan"), "loss": float("-inf")}], {})
    row = json.loads(path.read_text(), parse_constant=refuse)["rows"][0]
    assert row["natural"] is None
    assert row["loss"] is None


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    results.write(tmp_path, [ROW], ENVIRONMENT)

    def fail(source, target):
        assert json.loads(source.read_text())["rows"] == []
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk gone"):
        results.write(tmp_path, [], ENVIRONMENT)
    assert results.read(tmp_path).rows == [ROW]


def test_a_reader_never_sees_half_a_file(tmp_path):
    results.write(tmp_path, [ROW], ENVIRONMENT)

    def write_often():
        for count in range(1, 101):
            results.write(tmp_path, [ROW] * (count % 7 + 1), ENVIRONMENT)

    writer = threading.Thread(target=write_often)
    writer.start()
    reads = 0
    while writer.is_alive() or reads == 0:
        assert set(map(str, results.read(tmp_path).rows)) == {str(ROW)}
        reads += 1
    writer.join()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"method": None}, "rows[0].method"),
        ({"model": 3}, "rows[0].model"),
        ({"dataset": ["x"]}, "rows[0].dataset"),
        ({"natural": 84.7}, "rows[0].natural"),
        ({"natural": "0.8"}, "rows[0].natural"),
        ({"pgd10": -0.1}, "rows[0].pgd10"),
        ({"pgd20": True}, "rows[0].pgd20"),
        ({"pgd7": float("nan")}, "rows[0].pgd7"),
        ({"epochs": -1}, "rows[0].epochs"),
        ({"train_minutes": "88"}, "rows[0].train_minutes"),
        ({"epoch_seconds": []}, "rows[0].epoch_seconds"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, place):
    content = {"rows": [{**ROW, **change}], "environment": {}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", place)


@pytest.mark.parametrize("key", ["method", "model", "dataset"])
def test_a_missing_key_is_named(tmp_path, key):
    row = {name: value for name, value in ROW.items() if name != key}
    (tmp_path / "results.json").write_text(json.dumps({"rows": [row], "environment": {}}))
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", f"rows[0].{key}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[]", "an object"),
        ("{}", "rows"),
        ('{"rows": {}, "environment": {}}', "rows"),
        ('{"rows": [1], "environment": {}}', "rows[0]"),
        ('{"rows": []}', "environment"),
        ('{\n"rows": [', "line 2, column 10"),
        ("", "not JSON"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, place):
    (tmp_path / "results.json").write_text(text)
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", place)


def test_an_unreadable_file_is_named(tmp_path):
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", "No such file")
    (tmp_path / "results.json").write_bytes(b"\xff\xfe")
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", "UTF-8")
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").mkdir()
    refused(lambda: results.read(tmp_path), tmp_path / "results.json", "directory")


def test_run_load_reads_the_three_files(folder):
    run = Run.load(folder)
    assert (run.name, run.method) == ("fast-run", "fast")
    assert run.metrics == METRICS
    assert run.row == ROW
    assert run.config == {"method": "fast", "epsilon": 0.2}


def test_run_load_takes_the_newest_row(folder):
    results.write(folder, [ROW, {**ROW, "pgd20": 0.6}], ENVIRONMENT)
    assert Run.load(folder).row["pgd20"] == 0.6


def test_run_load_accepts_a_loss_that_is_not_a_number(folder):
    (folder / "metrics.jsonl").write_text(json.dumps({**METRICS[0], "train_loss": float("nan")}))
    assert str(Run.load(folder).metrics[0]["train_loss"]) == "nan"


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("config.json", "[]", "an object"),
        ("config.json", "{}", "method"),
        ("metrics.jsonl", '{"epoch": 1, "train_loss": 2, "train_accuracy": 0}\n{"epo', "line 2"),
        ("metrics.jsonl", '{"train_loss": 2, "train_accuracy": 0}', "line 1, epoch"),
        ("metrics.jsonl", '{"epoch": 1.5, "train_loss": 2, "train_accuracy": 0}', "line 1, epoch"),
        ("metrics.jsonl", '{"epoch": 1, "train_accuracy": 0}', "line 1, train_loss"),
        ("metrics.jsonl", '{"epoch": 1, "train_loss": 2, "train_accuracy": "x"}', "line 1, train_accuracy"),
        (
            "metrics.jsonl",
            '{"epoch": 1, "train_loss": 2, "train_accuracy": 0, "pgd10": 7}',
            "line 1, pgd10",
        ),
        ("metrics.jsonl", "3", "line 1"),
        ("results.json", '{"rows": [], "environment": {}}', "rows"),
    ],
)
def test_run_load_names_the_wrong_file(folder, name, text, place):
    (folder / name).write_text(text)
    refused(lambda: Run.load(folder), folder / name, place)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "results.json"])
def test_run_load_names_the_missing_file(folder, name):
    (folder / name).unlink()
    refused(lambda: Run.load(folder), folder / name, "No such file")


def refused(action, path, place):
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert place in message.removeprefix(str(path))
    assert "\n" not in message
