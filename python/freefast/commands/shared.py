"""What the commands have in common."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from freefast import reporting
from freefast.compare import CompareConfig
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.settings import Settings

Kind = TypeVar("Kind", TrainConfig, CompareConfig)

_WIDTH = 160
"""Columns of a table that is written to a file or a pipe."""


def fields_of(kind: type[Settings], settings: Settings) -> dict[str, Any]:
    """The settings that a kind has."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}


def changes(option: str, given: Kind, natural: Kind, allowed: Sequence[str]) -> dict[str, Any]:
    """What was given of the allowed settings; any other is refused beside such an option."""
    changes = {name: getattr(given, name) for name in allowed if getattr(given, name) != getattr(natural, name)}
    if dataclasses.replace(natural, **changes) != given:
        options = ", ".join(f"--{name}" for name in allowed)
        raise UserError(f"{option}: has settings of its own, only {options} may be given with it")
    return changes


@contextmanager
def hint(command: str, folder: Path, needs: str = "*") -> Iterator[None]:
    """Let an interrupt say how to go on, where there is something to go on with.

    needs: pattern of a file that must be in the folder
    """
    try:
        yield
    except KeyboardInterrupt:
        if not any(folder.glob(needs)):
            raise
        raise KeyboardInterrupt(f"- go on with: {command}") from None


def show(
    rows: Sequence[reporting.results.Row],
    folder: Path,
    written: str = "results.json, curves.png, report.html",
    columns: Sequence[reporting.table.Column] | None = None,
    note: str = "",
) -> None:
    """Print the table, the note, and what is in the folder; columns: the table's, the report's where None."""
    screen = console()
    screen.print(reporting.table.render(rows, columns))
    if note:
        screen.print(note, highlight=False, markup=False)
    screen.print(f"in {folder}: {written}", highlight=False, soft_wrap=True)


def console() -> Console:
    """Standard output, with room for a table where it is no terminal."""
    screen = Console()
    if not screen.is_terminal:
        screen.width = _WIDTH
    return screen
