"""Time to robust: how many seconds a recipe trains until its model withstands PGD-50."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from freefast import reporting
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.options import show_pixels
from freefast.reporting.table import Column
from freefast.training import setup
from freefast.training.loop import rehearse, train
from freefast.training.run_folder import RunFolder

_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Accuracy under PGD, a fraction, in so many seconds of training; epsilon in pixel units."""

    robust: float = 0.45
    seconds: float = 60.0
    steps: int = 50
    restarts: int = 10
    samples: int = 10_000
    seeds: int = 3
    epsilon: float = 8 / 255
    model: str = "preactresnet18"


GOAL = Goal()


@dataclass(frozen=True, kw_only=True)
class Speedrun:
    """The runs of one recipe."""

    rows: list[dict[str, Any]]
    """The runs' rows, with `seconds`: time of training."""

    mean: dict[str, float]
    """Of seconds and accuracies over the runs."""

    spread: dict[str, float | None]
    """Their sample standard deviations; None of one run."""

    departures: list[str]
    """Settings that are not the goal's, so that it cannot be met."""

    @property
    def met(self) -> bool:
        """Whether the means reach the goal."""
        robust = self.mean.get(f"pgd{GOAL.steps}", 0.0)
        return not self.departures and robust >= GOAL.robust and self.mean["seconds"] <= GOAL.seconds

    @property
    def verdict(self) -> str:
        """What there is to say of the goal, in a line."""
        goal = f"goal of {GOAL.robust:.0%} under PGD-{GOAL.steps} in {GOAL.seconds:.0f} s"
        if self.departures:
            return f"{goal}: not tried: {', '.join(self.departures)}"
        robust = self.mean[f"pgd{GOAL.steps}"]
        return f"{goal}: {'met' if self.met else 'not met'}: {robust:.1%} in {self.mean['seconds']:.1f} s"

    @property
    def columns(self) -> list[Column]:
        """The table's."""
        steps = reporting.table.pgd_steps(self.rows)
        accuracies = [Column("Natural", "natural", 3), *(Column(f"PGD-{count}", f"pgd{count}", 3) for count in steps)]
        return [Column("Seed", "seed", None), Column("Training (s)", "seconds", 2), *accuracies]

    @property
    def table(self) -> list[dict[str, Any]]:
        """The table's rows: a line a seed, mean and standard deviation."""
        return [*self.rows, {"seed": "mean", **self.mean}, {"seed": "std", **self.spread}]


def speedrun(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Speedrun:
    """Train, time and evaluate a run a seed in `config.out`, and write `results.json`, `table.md` and `table.csv`.

    The clock runs from the images as bytes in the host's memory to the weights behind the last update: copy to the
    device, model, optimiser, graph, every epoch's order, augmentation, attack and updates, and the guard where a recipe
    has one, since it chooses the weights. Not in it: reading the images, metrics and checkpoints, evaluation, and a
    rehearsal on made-up images of the same shapes in the same process, which loads libraries, lets cuDNN plan and
    torch.compile compile.

    resume: keep the finished runs that the folder holds; one that was interrupted in training is timed anew
    overwrite: replace them

    Raises: UserError as `train`, or where the folder holds runs and neither is asked for.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds: wanted different ones, at least one, got {list(seeds)}")
    if resume and overwrite:
        raise UserError("--resume: keeps finished runs, cannot --overwrite them")
    runs = [dataclasses.replace(config, seed=seed, out=config.out / f"seed{seed}") for seed in seeds]
    states = [_state(run, resume, overwrite) for run in runs]
    if {"new", "begun"} & set(states):
        rehearse(config, setup.make_data(config))
    for run, state in zip(runs, states, strict=True):
        if state != "finished":
            train(run, resume=state == "trained", overwrite=state == "begun" or overwrite, progress=progress)
    outcome = _outcome(config, [run.out for run in runs])
    _write(outcome, config.out, reporting.results.read(runs[0].out).environment)
    return outcome


def _state(run: TrainConfig, resume: bool, overwrite: bool) -> str:
    if resume:
        return RunFolder(run.out).state(run)
    if not overwrite:
        RunFolder(run.out).require_empty()
    return "new"


def _outcome(config: TrainConfig, folders: Sequence[Path]) -> Speedrun:
    rows = [{**reporting.Run.load(folder).row, "seconds": _seconds(RunFolder(folder))} for folder in folders]
    names = ["seconds", *(name for name in rows[0] if name == "natural" or name.startswith("pgd"))]
    values = {name: [float(row[name]) for row in rows] for name in names}
    return Speedrun(
        rows=rows,
        mean={name: statistics.mean(numbers) for name, numbers in values.items()},
        spread={name: statistics.stdev(numbers) if len(rows) > 1 else None for name, numbers in values.items()},
        departures=_departures(config, len(rows), rows[0]["samples"]),
    )


def _seconds(folder: RunFolder) -> float:
    parts = ("seconds", "setup_seconds", "guard_seconds")
    return sum(entry.get(part, 0.0) for entry in folder.read_metrics() for part in parts)


def _departures(config: TrainConfig, seeds: int, samples: int) -> list[str]:
    """samples: test images that were evaluated; an image folder is taken for CIFAR-10 where it has as many."""
    width = "" if config.width is None else f" of width {config.width}"
    settings = {
        f"dataset {config.dataset}": config.dataset in ("cifar10", "imagefolder"),
        f"model {config.model}{width}": config.model == GOAL.model and config.width in (None, _WIDTH),
        f"epsilon {show_pixels(config.epsilon)}": math.isclose(config.epsilon, GOAL.epsilon),
        f"no PGD-{GOAL.steps}": GOAL.steps in config.eval_steps,
        f"{config.restarts} restarts": config.restarts >= GOAL.restarts,
        f"{config.limit_train} training images": config.limit_train is None,
        f"{samples} test images": samples == GOAL.samples,
        f"images of {config.image_size} pixels": config.image_size is None,
        "weights chosen by the test set": config.select != "report",
        f"{seeds} seeds": seeds >= GOAL.seeds,
    }
    return [setting for setting, is_the_goals in settings.items() if not is_the_goals]


def _write(outcome: Speedrun, folder: Path, environment: Any) -> None:
    summary = {
        "goal": dataclasses.asdict(GOAL), "met": outcome.met, "departures": outcome.departures,
        "mean": outcome.mean, "spread": outcome.spread,
    }  # fmt: skip
    reporting.results.write(folder, outcome.rows, environment, summary)
    reporting.table.write(outcome.table, folder, outcome.columns)
