"""What each command of the command line takes and does."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro
from rich.console import Console

from advkernels import info
from freefast import reporting
from freefast.compare import PRESETS, CompareConfig, compare, require_settings, summarize
from freefast.config import METHODS, TrainConfig
from freefast.errors import UserError
from freefast.precision import PrecisionName
from freefast.progress import bars
from freefast.settings import Device, Settings
from freefast.training import results, setup
from freefast.training.loop import train
from freefast.training.run_folder import RunFolder

Kind = TypeVar("Kind", TrainConfig, CompareConfig)

_WIDTH = 160
"""Columns of a table that is written to a file or a pipe."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train one classifier, evaluate it and write its run folder."""

    resume: Path | None = None
    """Run folder to go on with, by its own settings; of the others only --device and --workers may be given."""

    overwrite: bool = False
    """Replace the run that the folder holds."""

    def run(self) -> None:
        """Train and print the table."""
        given = TrainConfig(**_fields_of(TrainConfig, self))
        config = given if self.resume is None else self._resumed(given, self.resume)
        go_on = f"freefast train {config.method} --resume {config.out}"
        with _hint(go_on, config.out / "checkpoint.pt"), bars() as progress:
            result = train(config, resume=self.resume is not None, overwrite=self.overwrite, progress=progress)
        _print([result.row], result.folder)

    def _resumed(self, given: TrainConfig, folder: Path) -> TrainConfig:
        changes = _changes("--resume", given, TrainConfig(method=given.method), ("device", "workers"))
        stored = RunFolder(folder).read_config()
        if stored.method != given.method:
            raise UserError(f"--resume: {folder} is a run of {stored.method}, not of {given.method}")
        if self.overwrite:
            raise UserError("--resume: goes on with the run, cannot --overwrite it")
        return dataclasses.replace(stored, **changes)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a run's weights again and refresh its row in results.json, its curves and its report."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, of a finished or an interrupted run."""

    steps: tuple[int, ...] | None = None
    """PGD steps (default: the run's own); accuracies of others stay in the row if all other settings are the same."""

    restarts: int | None = None
    """Random starts (default: the run's own)."""

    device: Device = "auto"
    """Where to evaluate; auto takes a GPU where there is one."""

    precision: PrecisionName | None = None
    """How the model computes (default: as it was trained)."""

    def run(self) -> None:
        """Evaluate and print the table."""
        folder = RunFolder(self.folder)
        stored = folder.read_config()
        config = dataclasses.replace(
            stored,
            eval_steps=stored.eval_steps if self.steps is None else self.steps,
            restarts=stored.restarts if self.restarts is None else self.restarts,
        )
        device = setup.pick_device(self.device)
        data = setup.make_data(config)
        precision = setup.make_precision(config)
        if self.precision is not None:
            precision = dataclasses.replace(precision, name=self.precision)
        model = results.load_model(folder, config, data, precision)
        precision.require(model, device, torch.zeros(2, data.channels, *data.image_size, device=device))
        model = model.to(device)
        before = reporting.results.read(folder.path) if (folder.path / "results.json").exists() else None
        environment = _environment(before, device)
        row_before = before.rows[-1] if before and before.rows else None
        with setup.runtime(config, device), bars() as progress:
            row = results.finish(config, folder, model, data, environment, precision, progress, row_before)
        _print([row], folder.path)


@dataclass(frozen=True, kw_only=True)
class Compare(CompareConfig):
    """Train several methods for the same number of epochs and write one table, curves, examples and a report.

    Runs of the same settings that the folder holds are kept, interrupted ones gone on with.
    """

    preset: Literal["demo"] | None = None
    """demo: the four methods on digits, anew, into runs/demo; of the others only --seed, --out and --device may be
    given."""

    overwrite: bool = False
    """Train every method anew, whatever the folder holds."""

    def run(self) -> None:
        """Compare and print the table."""
        config = CompareConfig(**_fields_of(CompareConfig, self))
        if self.preset is not None:
            changes = _changes("--preset", config, CompareConfig(), ("seed", "out", "device"))
            config = dataclasses.replace(PRESETS[self.preset], **changes)
            if not self.overwrite:
                require_settings(config)
        with _hint("the same command without --overwrite", config.out), bars() as progress:
            rows = compare(config, overwrite=self.overwrite or self.preset is not None, progress=progress)
        _print(rows, config.out)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write table, curves and report of finished runs."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders, or folders of a comparison, which stand for the runs in them."""

    out: Path | None = None
    """Folder to write to (default: the one given)."""

    def run(self) -> None:
        """Write the files and print the table."""
        runs = [run for folder in self.folders for run in _runs_in(folder)]
        if self.out is None and len(self.folders) != 1:
            raise UserError("--out: wanted a folder for the report of several runs")
        out = self.out or self.folders[0]
        if (out / "config.json").exists() and {out.resolve()} != {folder.resolve() for folder in self.folders}:
            raise UserError(f"--out: {out} holds a run, wanted another folder")
        _print(summarize(runs, out, sorted(out.glob("examples_*.png"))), out)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say which backends of the fused operations are there, and why one is not."""

    def run(self) -> None:
        """Print it."""
        print(info.describe())


def _fields_of(kind: type[Settings], settings: Settings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}


def _changes(option: str, given: Kind, natural: Kind, allowed: Sequence[str]) -> dict[str, Any]:
    """What was given of the allowed settings; any other is refused beside such an option."""
    changes = {name: getattr(given, name) for name in allowed if getattr(given, name) != getattr(natural, name)}
    if dataclasses.replace(natural, **changes) != given:
        options = ", ".join(f"--{name}" for name in allowed)
        raise UserError(f"{option}: has settings of its own, only {options} may be given with it")
    return changes


def _environment(before: reporting.results.Results | None, device: torch.device) -> dict[str, Any]:
    """Where the run was trained, as far as its results know, and what evaluates it now."""
    now = reporting.environment.describe(device)
    if before is None:
        return now
    evaluated = f"{now['command']} on {now['device']}, {now['date']}"
    return {**before.environment, "evaluated": evaluated}


@contextmanager
def _hint(command: str, needs: Path) -> Iterator[None]:
    """Let an interrupt say how to go on, where there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if not needs.exists():
            raise
        raise KeyboardInterrupt(f"- go on with: {command}") from None


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "config.json").exists():
        return [folder]
    runs = [folder / method for method in METHODS if (folder / method / "config.json").exists()]
    if not runs:
        raise UserError(f"{folder} holds no run: config.json is missing")
    return runs


def _print(rows: Sequence[reporting.results.Row], folder: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(reporting.table.render(rows))
    console.print(f"in {folder}: results.json, curves.png, report.html", highlight=False, soft_wrap=True)
