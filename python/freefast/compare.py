"""Several methods under one budget, one table."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from freefast.config import METHODS, OWNERS, Method, TrainConfig
from freefast.errors import UserError
from freefast.options import AUTO, AutoPixels
from freefast.settings import Settings
from freefast.summary import summarize
from freefast.training.loop import train
from freefast.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    """Train several methods on the same data for the same number of epochs, and write one table.

    Raises: UserError where a setting is out of its range.
    """

    methods: tuple[Method, ...] = METHODS
    """Methods to train, in the order of the table's rows."""

    alpha: AutoPixels = AUTO
    """Step size of fast's attack, pixel units (auto: 1.25 epsilon)."""

    out: Path = Path("runs/compare")
    """Folder of the table; every method's run is a folder in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise UserError(f"methods: wanted different ones, at least one, got {list(self.methods)}")
        for method in self.methods:
            self.train_config(method)

    def train_config(self, method: Method) -> TrainConfig:
        """One method's run."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        own = {name: value for name, value in shared.items() if method in OWNERS.get(name, METHODS)}
        alpha = self.alpha if method == "fast" else AUTO
        return TrainConfig(**own, method=method, alpha=alpha, out=self.out / method)


PRESETS = {
    "demo": CompareConfig(dataset="digits", epsilon=0.2, epochs=20, eval_every=2, seed=0, out=Path("runs/demo")),
}
"""Comparisons with a name."""


def compare(
    config: CompareConfig, *, overwrite: bool = False, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Train, evaluate and write the table, figures and report into `config.out`.

    Runs of the same settings that are in the folder already are taken as they are, or gone on with where they were
    interrupted.

    overwrite: train every method anew

    Returns: the rows of the table
    Raises: UserError as `train`, or where the folder holds a run of other settings.
    """
    for method in config.methods:
        run = config.train_config(method)
        state = "new" if overwrite else RunFolder(run.out).state(run)
        if state != "finished":
            train(run, resume=state != "new", overwrite=overwrite, progress=progress)
    folders = [config.out / method for method in config.methods]
    return summarize(folders, config.out)


def require_settings(config: CompareConfig) -> None:
    """Raises: UserError where the folder holds a run of other settings."""
    for method in config.methods:
        folder = RunFolder(config.out / method)
        if (folder.path / "config.json").exists():
            folder.require_settings(config.train_config(method))
