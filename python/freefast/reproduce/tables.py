"""The report's tables: its rows, ours, and the difference of their accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from freefast.reporting import Run, table
from freefast.reporting.curves import series
from freefast.reporting.section import Section
from freefast.reporting.table import Column
from freefast.reproduce import collapses, published
from freefast.reproduce.contents import NOTES, TABLES

ACCURACIES = ("natural", "pgd10", "pgd20", "pgd50")
COLUMNS = (
    Column("Method", "method", None),
    Column("Model", "model", None),
    Column("Setting", "setting", None),
    Column("Batch", "batch_size", 0),
    Column("Whose", "whose", None),
    Column("Natural", "natural", 3),
    Column("PGD-10", "pgd10", 3),
    Column("PGD-20", "pgd20", 3),
    Column("PGD-50", "pgd50", 3),
    Column("At epoch", "epoch", 0),
    Column("Epochs", "epochs", 0),
    Column("Train time (min)", "train_minutes", 2),
    Column("Epoch time (s)", "epoch_seconds", 2),
)
NARROW = (Column("Run", "run", None), *COLUMNS[5:10])
"""For terminals, of the lines of `narrow`."""
_PAGE = (NARROW[0], *COLUMNS[5:])
_ABOUT = ("method", "model", "setting", "batch_size")
PEEKED = "ours, best (peeks)"
PEEKING = (
    "Where the report attacked a run after every epoch, its row is of the epoch with the best PGD-50 on the test set. "
    "Ours is of the last epoch, and beside it of that choice, which peeks: the test set chooses what it judges."
)


class Taken(NamedTuple):
    """The epoch of a run that a row is of."""

    epoch: int
    """From 1."""

    accuracies: Mapping[str, float]
    """Fractions by the names of `results.json`."""


def rows(name: str, ours: Mapping[str, Run], states: Mapping[str, str]) -> list[dict[str, Any]]:
    """A table's lines: for each row of the report its own, ours and the difference, ours less the report's.

    Times have no difference: they are of other devices.

    name: one of `contents.TABLES`
    ours: finished runs by their recipes
    states: what to say of a run that is not there
    """
    lines = []
    for theirs, recipe in zip(published.table_rows()[name], TABLES[name], strict=True):
        about = {key: theirs[key] for key in _ABOUT}
        lines.append({**theirs, "whose": "report"})
        if recipe not in ours:
            lines.append({**about, "whose": f"ours: {states[recipe]}"})
            continue
        run = ours[recipe]
        choices = {"ours": last(run)}
        if len(series(run, "pgd50")[0]) > 1:
            choices = {"ours, last epoch": last(run), PEEKED: best(run)}
        for whose, taken in choices.items():
            own = {key: run.row[key] for key in (*_ABOUT, "epochs", "train_minutes", "epoch_seconds")}
            lines.append({**own, "whose": whose, "epoch": taken.epoch, **taken.accuracies})
            lines.append({**about, "whose": "difference", **_difference(taken.accuracies, theirs)})
    return lines


def last(run: Run) -> Taken:
    """What the run ended with."""
    accuracies = {key: run.row[key] for key in ACCURACIES if run.row.get(key) is not None}
    return Taken(run.row["epochs"], accuracies)


def best(run: Run) -> Taken:
    """The first of the evaluated epochs with the largest accuracy under PGD-50 on the test set."""
    robust = dict(zip(*series(run, "pgd50"), strict=True))
    epoch = max(robust, key=lambda epoch: robust[epoch])
    values = {key: dict(zip(*series(run, key), strict=True)) for key in ACCURACIES}
    return Taken(epoch, {key: values[key][epoch] for key in ACCURACIES if epoch in values[key]})


def write(name: str, lines: Sequence[Mapping[str, Any]], note: str, folder: Path) -> None:
    """Write NAME.md with a heading and the notes, and NAME.csv with unrounded values and the first note in a column."""
    text = [f"# {title(name)}", note, table.markdown(lines, COLUMNS).rstrip("\n"), *_remarks(name, lines)]
    (folder / f"{name}.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    table.write_csv([{**line, "note": note} for line in lines], folder / f"{name}.csv", COLUMNS)


def section(name: str, lines: Sequence[Mapping[str, Any]]) -> Section:
    """The table on the page."""
    text = " ".join(_remarks(name, lines))
    return Section(heading=title(name), text=text, rows=narrow(lines), columns=_PAGE)


def narrow(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table's lines with what they are of in one text, `run`.

    That is the report's run, and below it whose else, with what of it is not the report's.
    """
    about, result, theirs = "{method} {model}, {setting}, batch {batch_size}: report", [], lines[0]
    for line in lines:
        if line["whose"] == "report":
            theirs = line
            result.append({**line, "run": about.format(**line)})
        else:
            result.append({**line, "run": ": ".join([line["whose"], *_other(line, theirs)])})
    return result


def title(name: str) -> str:
    """ "Table of section 5.1"."""
    return f"Table of section {name.removeprefix('table-')}"


def notes(name: str) -> list[str]:
    """What a reader must know of the report's own numbers in a table."""
    return ([NOTES[name]] if name in NOTES else []) + collapses.remarks(TABLES[name])


def _other(line: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Model, setting and batch where they are not the report's, in one text; nothing where all are."""
    words = {"model": "{}", "setting": "{}", "batch_size": "batch {}"}
    own = [word.format(line[key]) for key, word in words.items() if line[key] != theirs[key]]
    return [", ".join(own)] if own else []


def _remarks(name: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    peeks = any(line["whose"] == PEEKED for line in lines)
    return [PEEKING] * peeks + notes(name)


def _difference(ours: Mapping[str, float], theirs: Mapping[str, Any]) -> dict[str, float]:
    """To the thousandths that the report gives."""
    both = [key for key in ACCURACIES if key in ours and theirs[key] is not None]
    return {key: round(ours[key] - theirs[key], 3) + 0.0 for key in both}  # + 0.0: no -0.000
