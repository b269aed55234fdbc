"""One table and one page of finished runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from freefast import reporting
from freefast.pictures import draw
from freefast.reporting import curves, falls, report, time_accuracy
from freefast.reporting.results import Run, notes
from freefast.reporting.text import told_apart


def summarize(
    folders: Sequence[Path], out: Path, *, pictures: bool = True, device: str | None = None
) -> list[dict[str, Any]]:
    """Write the table and `results.json` of some run folders, and all that `write_report` writes.

    Returns: the rows, with the runs' names as `run`
    """
    runs = _load(folders)
    rows = [{**run.row, "run": run.name} for run in runs]
    out.mkdir(parents=True, exist_ok=True)
    reporting.results.write(out, [run.row for run in runs], runs[0].environment)
    reporting.table.write(rows, out, note=notes(runs))
    write_report(folders, out, pictures=pictures, device=device)
    return rows


def write_report(folders: Sequence[Path], out: Path, *, pictures: bool = True, device: str | None = None) -> None:
    """Write `report.html` and its figures, by the results that the folders hold.

    pictures: attack the runs' weights, for examples and loss surfaces
    device: where; None takes each run's own
    """
    runs = _load(folders)
    if out not in folders or not (out / "curves.png").exists():  # a run has its own already
        curves.plot(runs, out / "curves.png")
    sections = [*falls.section(runs), curves.section(out / "curves.png")]
    if time_accuracy.can_plot(runs):
        sections.append(time_accuracy.section(runs, out))
    if pictures:
        sections += draw(folders, [run.name for run in runs], out, device)
    data = ", ".join(dict.fromkeys(str(run.row["dataset"]) for run in runs))
    title = f"{', '.join(dict.fromkeys(run.method for run in runs))} on {data}"
    report.write(out, title=title, runs=runs, sections=sections)


def _load(folders: Sequence[Path]) -> list[Run]:
    """The runs, each by a name of its own."""
    runs = [Run.load(folder) for folder in folders]
    names = told_apart([run.name for run in runs])
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
