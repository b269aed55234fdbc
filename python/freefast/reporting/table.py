"""The report's table, for a terminal, Markdown, HTML and CSV."""

import csv
import html as markup
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from freefast.attacks import NAMED
from freefast.options import show_pixels
from freefast.reporting.results import Row

MISSING = "\N{EM DASH}"
REPORT_STEPS = (10, 20, 50)


class Column(NamedTuple):
    """One column of the table."""

    title: str
    key: str
    decimals: int | None
    """Digits after the point; None for text, set to the left."""


_EVALUATED = (Column("Ball", "ball", None), Column("Samples", "samples", 0))
"""Of an evaluation by settings of its own."""


def columns(rows: Sequence[Row]) -> list[Column]:
    """The report's columns, one for every other number of PGD steps and every other attack that a row has, and what
    tells the rows apart: models and batch sizes that differ, and `run` where method and setting are not enough."""
    kinds = {(row.get("method"), row.get("setting")) for row in rows}
    return [
        *([Column("Run", "run", None)] if len(kinds) < len(rows) and any("run" in row for row in rows) else []),
        Column("Method", "method", None),
        *([Column("Model", "model", None)] if _differ(rows, "model") else []),
        Column("Setting", "setting", None),
        *([Column("Batch", "batch_size", 0)] if _differ(rows, "batch_size") else []),
        *([Column("Precision", "precision", None)] if {_precision(row) for row in rows} - {"fp32"} else []),
        *(_EVALUATED if any("norm" in row for row in rows) else []),
        Column("Natural", "natural", 3),
        *(Column(f"PGD-{steps}", f"pgd{steps}", 3) for steps in pgd_steps(rows, REPORT_STEPS)),
        *(Column(kind.__name__, name, 3) for name, kind in NAMED.items() if any(name in row for row in rows)),
        *([Column("Of epoch", "selected_epoch", 0)] if any(_is_of_earlier(row) for row in rows) else []),
        Column("Epochs", "epochs", 0),
        Column("Train time (min)", "train_minutes", 2),
        Column("Epoch time (s)", "epoch_seconds", 2),
    ]


def _differ(rows: Sequence[Row], key: str) -> bool:
    return len({row.get(key) for row in rows}) > 1


def _is_of_earlier(row: Row) -> bool:
    """Whether a row's accuracies are of other weights than the last epoch's."""
    return row.get("selected_epoch") not in (None, row.get("epochs"))


def _precision(row: Row) -> str:
    """What a row was trained in, and evaluated in where that is another."""
    trained = row.get("precision", "fp32")
    masters = "" if row.get("master_weights") is not False else ", no masters"
    evaluated = row.get("evaluated_in", trained)
    return f"{trained}{masters}" + (f", evaluated in {evaluated}" if evaluated != trained else "")


def _ball(row: Row) -> str | None:
    """Norm and radius of an evaluation, "linf 8/255"."""
    return f"{row['norm']} {show_pixels(row['epsilon'])}" if "norm" in row else None


_TEXTS = {"precision": _precision, "ball": _ball}


def pgd_steps(entries: Iterable[Row], always: Sequence[int] = ()) -> list[int]:
    """The numbers of PGD steps that the entries' keys name (pgd10, pgd20, ...), in rising order."""
    found = {int(key[3:]) for entry in entries for key in entry if re.fullmatch(r"pgd\d+", key)}
    return sorted(found.union(always))


def render(rows: Sequence[Row], shown: Sequence[Column] | None = None) -> Table:
    """The table for `rich.console.Console.print`; shown: its columns, the report's where None."""
    shown = columns(rows) if shown is None else shown
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in shown:
        title = column.title.replace(" ", "\n")
        table.add_column(title, justify="left" if column.decimals is None else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row, column)) for column in shown))
    return table


def markdown(rows: Sequence[Row], shown: Sequence[Column] | None = None) -> str:
    """The table in GitHub's Markdown, ending in a newline; shown: other columns than `columns`."""
    shown = columns(rows) if shown is None else shown
    lines = [
        [column.title for column in shown],
        ["---" if column.decimals is None else "---:" for column in shown],
        *([_markdown_cell(_cell(row, column)) for column in shown] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def html(rows: Sequence[Row], shown: Sequence[Column] | None = None) -> str:
    """The table as an HTML element; text columns have the class `text`; shown: other columns than `columns`."""
    shown = columns(rows) if shown is None else shown
    body = "".join(_html_line("td", [_cell(row, column) for column in shown], shown) for row in rows)
    head = _html_line("th", [column.title for column in shown], shown)
    return f"<table>\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table>"


def write(rows: Sequence[Row], folder: Path | str, shown: Sequence[Column] | None = None, note: str = "") -> None:
    """Write `table.md`, below the note, and `table.csv`; shown: other columns than `columns`."""
    folder = Path(folder)
    shown = columns(rows) if shown is None else shown
    head = f"{_markdown_cell(note)}\n\n" if note else ""
    (folder / "table.md").write_text(head + markdown(rows, shown), encoding="utf-8")
    write_csv(rows, folder / "table.csv", shown)


def write_csv(rows: Sequence[Row], path: Path, shown: Sequence[Column]) -> None:
    """Write the rows' own keys and unrounded values: the table's columns first, then every other key."""
    first = [column.key for column in shown if column.key != "ball"]  # of norm and epsilon
    keys = dict.fromkeys(first + [key for row in rows for key in row])
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(keys), restval="")
        writer.writeheader()
        writer.writerows(rows)


def _cell(row: Row, column: Column) -> str:
    value: Any = _TEXTS[column.key](row) if column.key in _TEXTS else row.get(column.key)
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    return str(value) if column.decimals is None else f"{value:.{column.decimals}f}"


def _markdown_cell(text: str) -> str:
    return markup.escape(" ".join(text.split()), quote=False).replace("\\", "\\\\").replace("|", "\\|")


def _html_line(tag: str, texts: Sequence[str], shown: Sequence[Column]) -> str:
    cells = (
        f'<{tag} class="{"text" if column.decimals is None else "number"}">{markup.escape(text)}</{tag}>'
        for text, column in zip(texts, shown, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>\n"
