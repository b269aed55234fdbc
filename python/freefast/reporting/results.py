"""The files of a run folder, read and checked, and `results.json`, written."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freefast.atomic import replace_text
from freefast.attacks import NAMED
from freefast.errors import UserError

Row = Mapping[str, Any]

_TEXT = ("method", "model", "dataset")
_AMOUNT = ("epochs", "train_minutes", "epoch_seconds")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of one `results.json`."""

    rows: list[Row]
    """One row a trained model; accuracies are fractions, times are minutes and seconds as the key says."""

    environment: Mapping[str, Any]
    """Device, versions, commit and command line, from `environment.describe`."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """What is to be said of all rows together, of a speedrun, a reproduction or a benchmark."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained model's record."""

    name: str
    """What tables and curves call the run."""

    method: str
    """standard, free, fast or pgd."""

    metrics: Sequence[Mapping[str, Any]]
    """One entry an epoch: epoch, train_loss, train_accuracy; where evaluated natural, pgd10, pgd20, ..."""

    row: Row
    """The run's row of `results.json`."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's settings, as in `config.json`."""

    environment: Mapping[str, Any] = field(default_factory=dict)
    """Where it was trained, as in `results.json`."""

    note: str = ""
    """What a reader must know of it first, `note.txt`."""

    @classmethod
    def load(cls, folder: Path | str) -> "Run":
        """Read `config.json`, `metrics.jsonl`, `results.json` with its newest row, and `note.txt`, if there is one.

        Raises: UserError naming file and key where one is missing or wrong.
        """
        folder = Path(folder)
        path = folder / "config.json"
        config = _parse(path, _text_of(path))
        _check(isinstance(config, dict), path, "", "an object", config)
        method = config.get("method")
        _check(isinstance(method, str), path, "method", "a string", method)
        metrics = _read_metrics(folder / "metrics.jsonl")
        results = read(folder)
        _check(bool(results.rows), folder / "results.json", "rows", "at least one row", results.rows)
        note = folder / "note.txt"
        return cls(
            name=folder.resolve().name, method=method, metrics=metrics, row=results.rows[-1], config=config,
            environment=results.environment, note=_text_of(note) if note.exists() else "",
        )  # fmt: skip


def notes(runs: Sequence[Run]) -> str:
    """What a reader must know of some runs first, each text once."""
    return " ".join(dict.fromkeys(run.note for run in runs if run.note))


def write(
    folder: Path | str, rows: Sequence[Row], environment: Mapping[str, Any], summary: Mapping[str, Any] | None = None
) -> Path:
    """Write `results.json` in one step: a reader finds the old file or the new one, never half of one.

    NaN and infinity become null, which JSON has no other word for.

    summary: what is to be said of all rows together, if anything
    """
    path = Path(folder) / "results.json"
    content: dict[str, Any] = {"rows": [_finite(row) for row in rows], "environment": dict(environment)}
    if summary is not None:
        content["summary"] = dict(summary)
    replace_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def read(folder: Path | str) -> Results:
    """Read and check `results.json`.

    Raises: UserError naming file and key where one is missing or wrong.
    """
    path = Path(folder) / "results.json"
    content = _parse(path, _text_of(path))
    _check(isinstance(content, dict), path, "", "an object", content)
    rows, environment = content.get("rows"), content.get("environment")
    _check(isinstance(rows, list), path, "rows", "a list", rows)
    _check(isinstance(environment, dict), path, "environment", "an object", environment)
    for index, row in enumerate(rows):
        _check_row(path, f"rows[{index}]", row)
    summary = content.get("summary", {})
    _check(isinstance(summary, dict), path, "summary", "an object", summary)
    return Results(rows=rows, environment=environment, summary=summary)


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    metrics = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        where = f"line {number}"
        entry = _parse(path, line, where)
        _check(isinstance(entry, dict), path, where, "an object", entry)
        _check(_is_whole(entry.get("epoch")), path, f"{where}, epoch", "a whole number", entry.get("epoch"))
        for key in ("train_loss", "train_accuracy"):
            _check(_is_number(entry.get(key)), path, f"{where}, {key}", "a number", entry.get(key))
        _check_accuracies(path, f"{where}, ", entry)
        metrics.append(entry)
    return metrics


def _check_row(path: Path, where: str, row: Any) -> None:
    _check(isinstance(row, dict), path, where, "an object", row)
    for key in _TEXT:
        _check(isinstance(row.get(key), str), path, f"{where}.{key}", "a string", row.get(key))
    for key in _AMOUNT:
        value = row.get(key)
        good = value is None or (_is_number(value) and value >= 0)
        _check(good, path, f"{where}.{key}", "a number >= 0 or null", value)
    _check_accuracies(path, f"{where}.", row)


def _check_accuracies(path: Path, prefix: str, row: Row) -> None:
    for key, value in row.items():
        if key == "natural" or key in NAMED or re.fullmatch(r"pgd\d+", key):
            good = value is None or (_is_number(value) and 0 <= value <= 1)
            _check(good, path, prefix + key, "a fraction in [0, 1] or null", value)


def _check(good: bool, path: Path, where: str, wanted: str, got: Any) -> None:
    if not good:
        place = f"{path}: {where}" if where else f"{path}"
        raise UserError(f"{place}: wanted {wanted}, got {json.dumps(got)[:80]}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error


def _parse(path: Path, text: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: {place}: not JSON: {error.msg}") from error


def _finite(row: Row) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
