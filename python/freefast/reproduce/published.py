"""The report's own numbers: the rows of its tables, and its runs epoch by epoch, as published with its code."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from freefast.reporting import Run
from freefast.reproduce.contents import LOGS

FOLDER = Path(__file__).parent / "report"
_TEXT = ("table", "method", "model", "setting")
_METRICS: dict[str, str] = {
    "train_acc": "train_accuracy", "train_loss": "train_loss", "test_acc": "natural",
    "pgd10_acc": "pgd10", "pgd20_acc": "pgd20", "pgd50_acc": "pgd50",
}  # fmt: skip


def table_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, by the names of `contents.TABLES`, with the keys of `results.json`; None is not said."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for line in _read("tables.csv"):
        row = {key: text if key in _TEXT else _number(text) for key, text in line.items()}
        row["setting"] = _setting(line["setting"])
        names = {"pgd10": row.pop("pgd10"), "pgd20": row.pop("pgd20"), "pgd50": row.pop("pgd50")}
        tables.setdefault(f"table-{row.pop('table')}", []).append(row | names)
    return tables


def runs() -> dict[str, Run]:
    """The report's runs by the recipes of `contents.LOGS`, as if they were ours."""
    lines: dict[str, list[dict[str, str]]] = {}
    for line in _read("curves.csv"):
        lines.setdefault(line["run"], []).append(line)
    return {recipe: _run(recipe, lines[log]) for recipe, log in LOGS.items()}


def _run(recipe: str, lines: list[dict[str, str]]) -> Run:
    metrics = [_entry(line) for line in lines]
    seconds = [entry["seconds"] for entry in metrics]
    first, last = lines[0], metrics[-1]
    accuracies: dict[str, float] = {key: last[key] for key in ("natural", "pgd10", "pgd20", "pgd50") if key in last}
    row: dict[str, Any] = {
        "method": first["method"],
        "model": first["model"],
        "setting": _setting(first["setting"]),
        "dataset": "cifar10",
        **accuracies,
        "epochs": len(metrics),
        "train_minutes": sum(seconds) / 60,
        "epoch_seconds": sum(seconds) / len(seconds),
        "batch_size": int(first["batch_size"]),
    }
    return Run(name=recipe, method=first["method"], metrics=metrics, row=row)


def _entry(line: dict[str, str]) -> dict[str, Any]:
    known = {name: float(line[key]) for key, name in _METRICS.items() if line[key]}
    return {"epoch": int(line["epoch"]), **known, "seconds": 60 * float(line["epoch_minutes"])}


def _read(name: str) -> Iterable[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _setting(text: str) -> str:
    """The report counts alpha in levels of 255."""
    return text.replace("alpha=10", "alpha=10/255").replace("alpha=16", "alpha=16/255")


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)
