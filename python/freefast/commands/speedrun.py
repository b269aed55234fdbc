"""`freefast speedrun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from freefast.commands.shared import fields_of, hint, show
from freefast.config import TrainConfig
from freefast.options import AUTO, AutoPath
from freefast.progress import bars
from freefast.speedrun import speedrun


@dataclass(frozen=True, kw_only=True)
class Speedrun(TrainConfig):
    """Train a recipe with several seeds, time it, evaluate it, and say whether 45% under PGD-50 took less than 60 s.

    The clock has everything from the images as bytes in memory to the last weights, but for metrics, checkpoints and
    evaluation; a rehearsal on made-up images comes before it.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds to run."""

    seed: tyro.conf.Suppress[int] = 0
    """Of the rehearsal."""

    out: AutoPath = AUTO
    """Folder of the table; every seed's run is a folder in it (auto: runs/speedrun)."""

    recipe: str = "speedrun"
    """Settings to begin with: the name of one of freefast's recipes, or a TOML file; options given beside it count
    more."""

    resume: bool = False
    """Keep the finished runs that the folder holds."""

    overwrite: bool = False
    """Replace the runs that the folder holds."""

    def run(self) -> None:
        """Run and print the table and the verdict."""
        config = TrainConfig(**fields_of(TrainConfig, self))
        with hint("the same command with --resume", config.out), bars() as progress:
            outcome = speedrun(
                config, self.seeds, resume=self.resume, overwrite=self.overwrite, progress=progress
            )  # fmt: skip
        show(outcome.table, config.out, "results.json, table.md, table.csv", outcome.columns)
        print(outcome.verdict)

    def _natural(self) -> dict[str, Any]:
        return {**super()._natural(), "out": Path("runs/speedrun")}
