"""`freefast report`."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from freefast import reporting
from freefast.commands.shared import show
from freefast.config import METHODS
from freefast.errors import UserError
from freefast.reporting.results import notes
from freefast.settings import Device
from freefast.summary import summarize
from freefast.training import setup


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write table, figures and report of finished runs."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders, or folders of a comparison, a speedrun or a reproduction, which stand for the runs in them."""

    out: Path | None = None
    """Folder to write to (default: the one given, if it is of a run or of a comparison)."""

    pictures: bool = True
    """Load the runs' weights and data, and show images under attack and the loss around them; takes as long as
    classifying 15,000 test images, for every run."""

    device: Device = "auto"
    """Where the runs' models are attacked for the pictures; auto takes a GPU where there is one."""

    def run(self) -> None:
        """Write the files and print the table."""
        setup.pick_device(self.device)
        runs = [run for folder in self.folders for run in _runs_in(folder)]
        if self.out is None and len(self.folders) != 1:
            raise UserError("--out: wanted a folder for the report of several runs")
        out = self.out or self.folders[0]
        if (out / "config.json").exists() and {out.resolve()} != {folder.resolve() for folder in self.folders}:
            raise UserError(f"--out: {out} holds a run, wanted another folder")
        if (out / "results.json").exists() and reporting.results.read(out).summary:
            raise UserError(f"--out: {out} holds a speedrun or a reproduction, wanted another folder")
        rows = summarize(runs, out, pictures=self.pictures, device=self.device)
        show(rows, out, note=notes([reporting.Run.load(run) for run in runs]))


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "config.json").exists():
        return [folder]
    inside = folder / "runs" if (folder / "reproduce.json").exists() else folder
    begun = sorted(path.parent for path in inside.glob("*/config.json"))
    runs = [run for run in begun if (run / "results.json").exists()]
    if not runs:
        raise UserError(f"{folder} holds no {'finished run' if begun else 'run: config.json is missing'}")
    if left_out := [run.name for run in begun if run not in runs]:
        warnings.warn(f"{folder}: not finished and left out: {', '.join(left_out)}", stacklevel=2)
    return sorted(runs, key=lambda run: METHODS.index(run.name) if run.name in METHODS else -1)
