"""One HTML file with everything about some runs: no script, nothing fetched."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from freefast.reporting import table
from freefast.reporting.page import PAGE
from freefast.reporting.results import Run, notes
from freefast.reporting.section import Section, figure, named, wide

_ABOUT = ("dataset", "model", "epsilon", "samples", "restarts", "evaluated_in")
_OF_A_COMMAND = ("date", "command", "evaluated")
_ATTACK = (
    "PGD-N: N steps of size epsilon / 4 (epsilon in pixel units) up the cross-entropy from a random start; a sample "
    "stops once it is misclassified."
)


def write(
    folder: Path | str,
    *,
    title: str,
    runs: Sequence[Run],
    images: Sequence[Path | str] = (),
    sections: Sequence[Section] = (),
    banner: str = "",
) -> Path:
    """Write `report.html`: the table, the sections, the images, every run's settings and environment.

    images: PNG files, inlined; a file's name is its caption
    sections: tables and figures with headings and captions
    banner: what a reader must know first, such as that all was scaled down; by itself, the runs' notes

    Raises: UserError where an image is not a PNG file.
    """
    path = Path(folder) / "report.html"
    parts = [section.html() for section in sections] + [figure(named(Path(image))) for image in images]
    banner = banner or notes(runs)
    page = PAGE.substitute(
        title=escape(title),
        banner=f'<p class="banner" role="note">{escape(banner)}</p>' if banner else "",
        about=_definitions(_shared(runs)),
        table=wide(_table(runs), "Results") + _peeking(runs),
        sections="\n".join(parts),
        runs="\n".join(_run(run) for run in runs),
        environment=_environments(runs),
    )
    path.write_text(page, encoding="utf-8")
    return path


def _table(runs: Sequence[Run]) -> str:
    return table.html([{**run.row, "run": run.name} for run in runs])


def _shared(runs: Sequence[Run]) -> dict[str, Any]:
    """What the table does not show and holds for all of its rows."""
    values = {key: [run.row.get(key) for run in runs] for key in _ABOUT}
    shared = {key: found[0] for key, found in values.items() if found and found.count(found[0]) == len(found)}
    return {key: value for key, value in shared.items() if value is not None} | {"attack": _ATTACK}


def _peeking(runs: Sequence[Run]) -> str:
    """What to say of runs whose weights the test set chose."""
    names = [run.name for run in runs if run.row.get("selected") == "report"]
    if not names:
        return ""
    text = f"{', '.join(names)}: the test set chose the epoch, so that the accuracies on it are too good."
    return f'<p class="banner" role="note">{escape(text)}</p>'


def _run(run: Run) -> str:
    """What the table does not show; where a setting was left open, what the run took."""
    shown = {column.key for column in table.columns([run.row])}
    given = {key: value for key, value in run.config.items() if value is not None or key not in run.row}
    return _details(run.name, {key: value for key, value in run.row.items() if key not in shown} | given)


def _environments(runs: Sequence[Run]) -> str:
    """Once where it is the same for all but for time and command, else each run's."""
    kinds = {json.dumps({**run.environment, **dict.fromkeys(_OF_A_COMMAND)}, sort_keys=True) for run in runs}
    if len(kinds) > 1:
        return "\n".join(_details(run.name, run.environment) for run in runs)
    return _definitions(runs[0].environment if runs else {})


def _details(name: str, entries: Mapping[str, Any]) -> str:
    return f"<details><summary>{escape(name)}</summary>\n{_definitions(entries)}\n</details>"


def _definitions(entries: Mapping[str, Any]) -> str:
    items = (f"<div><dt>{escape(str(key))}</dt><dd>{escape(_text(value))}</dd></div>" for key, value in entries.items())
    return "<dl>\n" + "\n".join(items) + "\n</dl>"


def _text(value: Any) -> str:
    if value is None or value == "":
        return table.MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
