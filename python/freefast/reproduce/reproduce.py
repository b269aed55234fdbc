"""The report, run again: its queue of runs, and what is made of those that are finished."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.progress import Progress

from freefast import reporting
from freefast.atomic import replace_text
from freefast.errors import UserError
from freefast.pictures import draw
from freefast.reporting import Run, falls, time_accuracy
from freefast.reporting.section import Section
from freefast.reporting.table import Column
from freefast.reproduce import figures, tables
from freefast.reproduce.config import ReproduceConfig
from freefast.reproduce.contents import FIGURES, PICTURED, TABLES, TITLE, chosen, recipes_of
from freefast.reproduce.queue import Queue, State
from freefast.reproduce.scales import described
from freefast.summary import write_report
from freefast.training import setup
from freefast.training.run_folder import RunFolder

_SETTINGS = "reproduce.json"
_HIDDEN = "Where the report chose the best epoch, its row does not show such a fall."


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What a call made, and what is left."""

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    """The lines of each table by its name."""

    note: str
    """Scale and data, in a line."""

    left: Sequence[str]
    """Runs that this call was to make, and that the same call goes on with."""

    failures: Mapping[str, str]
    """Runs that failed, or cannot be read, and why."""


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What the folder holds of the runs that tables and figures need, by their recipes."""

    states: dict[str, State]
    failures: dict[str, str]

    ours: dict[str, Run] = field(default_factory=dict)
    """Those that are finished."""

    folders: dict[str, Path] = field(default_factory=dict)


def reproduce(config: ReproduceConfig, progress: Progress | None = None) -> Reproduction:
    """Run what is left of the queue, then write tables, figures, `results.json` and `report.html` into `config.out`.

    Runs that are finished are kept, interrupted ones gone on with at their last epoch, whatever interrupted them; those
    that were evaluated by other settings than their own since are evaluated again.

    Warns: UserWarning for each that is evaluated again.

    Raises: UserError where data or device are not there, or the folder is of other settings, holds something else or is
        worked in by another process.
    """
    runs = config.runs()
    _require_settings(config)
    setup.pick_device(config.device)
    data = setup.make_data(next(iter(runs.values())))
    with _alone_in(config.out):
        _write_settings(config)
        queue = Queue(runs, config.budget_minutes, len(data.test))
        queue.work(progress)
        return _write(config, queue)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"--out: another process works in {folder}") from None


def _require_settings(config: ReproduceConfig) -> None:
    path = config.out / _SETTINGS
    if not path.exists():
        if config.out.exists() and any(not found.name.startswith(".") for found in config.out.iterdir()):
            raise UserError(f"--out: {config.out} holds something else than a reproduction, wanted another folder")
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(stored, dict):
        raise UserError(f"{path}: wanted an object, got {stored!r}")
    for name, wanted in config.kept().items():
        if stored.get(name) != wanted:
            option = name.replace("_", "-")
            before = f"{config.out} was made with {_shown(name, stored.get(name))}, not {_shown(name, wanted)}"
            raise UserError(f"--{option}: {before}: give another --out")


def _shown(name: str, value: Any) -> str:
    """A setting as the command line has it; what was left open."""
    return str(value) if value is not None else "auto" if name == "precision" else "none"


def _write_settings(config: ReproduceConfig) -> None:
    replace_text(config.out / _SETTINGS, json.dumps(config.kept(), indent=2) + "\n")


def _write(config: ReproduceConfig, queue: Queue) -> Reproduction:
    contents = tuple(name for name in chosen(()) if name in config.contents or _was_made(config, name))
    note = described(config.scale, next(iter(queue.runs.values())))
    held = _held(config, queue, recipes_of(contents), note)
    ours, failures = held.ours, held.failures
    lines = {name: tables.rows(name, ours, held.states) for name in contents if name in TABLES}
    sections = []
    for name, rows in lines.items():
        tables.write(name, rows, note, _folder(config, "tables"))
        sections.append(tables.section(name, rows))
    for name in contents:
        if name in FIGURES:
            path = figures.write(name, ours, note, _folder(config, "figures"))
            sections.append(figures.section(name, path))
    sections += falls.section(list(ours.values()), _HIDDEN) + _failed(failures) + _pictures(config, held)
    left = [name for name, state in held.states.items() if state not in ("finished", "failed")]
    _page(config.out, note, list(ours.values()), sections, {"left": left, "failures": failures})
    mine = [name for name in left if name in queue.runs]
    return Reproduction(tables=lines, note=note, left=mine, failures=failures)


def _held(config: ReproduceConfig, queue: Queue, recipes: Sequence[str], note: str) -> _Held:
    """Those of the queue and those that earlier calls were for; the note is left with each that is finished."""
    before = Queue({name: config.run_of(name) for name in recipes if name not in queue.runs}, 0, queue.samples)
    held = _Held(states={**before.states, **queue.states}, failures={**before.failures, **queue.failures})
    for name in [name for name, state in held.states.items() if state == "finished"]:
        folder = config.run_of(name).out
        try:
            ours = _load(folder)
            _say(note, folder)
            held.ours[name], held.folders[name] = ours, folder
        except UserError as error:
            held.states[name], held.failures[name] = "failed", f"{error}; delete {folder} to begin it anew"
    return held


def _was_made(config: ReproduceConfig, name: str) -> bool:
    """Whether an earlier call made this table or figure."""
    return any((config.out / file).exists() for file in (f"tables/{name}.md", f"figures/{name}.png"))


def _pictures(config: ReproduceConfig, held: _Held) -> list[Section]:
    """What the report has no figures of: time against robustness, attacked images, loss surfaces."""
    folder, runs = _folder(config, "figures"), list(held.ours.values())
    sections = [time_accuracy.section(runs, folder)] if time_accuracy.can_plot(runs) else []
    shown = [name for name in PICTURED if name in held.ours]
    drawn, names = [held.folders[name] for name in shown], [held.ours[name].name for name in shown]
    return sections + (draw(drawn, names, folder, config.device) if drawn else [])


def _load(folder: Path) -> Run:
    """A finished run, by a name that fits into figures."""
    run = Run.load(folder)
    return dataclasses.replace(run, name=run.name.replace("preactresnet18", "PreAct18").removesuffix("-charts"))


def _say(note: str, folder: Path) -> None:
    """Leave the note with a run, for every page that is made of it, and on its own."""
    RunFolder(folder).save_note(note)
    if escape(note) not in (folder / "report.html").read_text(encoding="utf-8", errors="replace"):
        write_report([folder], folder, pictures=False)


def _failed(failures: Mapping[str, str]) -> list[Section]:
    rows = [{"run": name, "why": why} for name, why in failures.items()]
    columns = (Column("Run", "run", None), Column("Why", "why", None))
    return [Section(heading="Runs that failed", rows=rows, columns=columns)] if rows else []


def _page(out: Path, note: str, runs: Sequence[Run], sections: Sequence[Section], summary: Mapping[str, Any]) -> None:
    """`results.json` and `report.html` of the finished runs."""
    environment = runs[0].environment if runs else {}
    reporting.results.write(out, [run.row for run in runs], environment, {"note": note, **summary})
    title = f"{TITLE}, run again"
    reporting.report.write(out, title=title, runs=runs, sections=sections, banner=note)


def _folder(config: ReproduceConfig, name: str) -> Path:
    folder = config.out / name
    folder.mkdir(exist_ok=True)
    return folder
