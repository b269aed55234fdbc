"""`freefast train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from freefast.commands.shared import changes, fields_of, hint, show
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.progress import bars
from freefast.summary import write_report
from freefast.training.loop import train
from freefast.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train one classifier, evaluate it and write its run folder."""

    recipe: str | None = None
    """Settings to begin with: the name of one of freefast's recipes, or a TOML file; options given beside it count
    more."""

    resume: Path | None = None
    """Run folder to go on with, by its own settings; of the others only --device, --workers and --graph may be
    given."""

    overwrite: bool = False
    """Replace the run that the folder holds."""

    def run(self) -> None:
        """Train and print the table."""
        given = TrainConfig(**fields_of(TrainConfig, self))
        config = given if self.resume is None else self._resumed(given, self.resume)
        go_on = f"freefast train {config.method} --resume {config.out}"
        with hint(go_on, config.out, "checkpoint.pt"), bars() as progress:
            result = train(config, resume=self.resume is not None, overwrite=self.overwrite, progress=progress)
        write_report([result.folder], result.folder, device=config.device)
        show([result.row], result.folder)

    def _resumed(self, given: TrainConfig, folder: Path) -> TrainConfig:
        given_too = changes("--resume", given, TrainConfig(method=given.method), ("device", "workers", "graph"))
        stored = RunFolder(folder).read_config()
        if stored.method != given.method:
            raise UserError(f"--resume: {folder} is a run of {stored.method}, not of {given.method}")
        if self.overwrite:
            raise UserError("--resume: goes on with the run, cannot --overwrite it")
        return dataclasses.replace(stored, **given_too)
