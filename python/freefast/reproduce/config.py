"""The settings of a reproduction, and what they make of each recipe."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freefast import recipes
from freefast.checks import apply_types
from freefast.config import TrainConfig
from freefast.data import DatasetName
from freefast.errors import UserError
from freefast.options import AUTO, AutoStr
from freefast.reproduce.contents import chosen, recipes_of
from freefast.reproduce.scales import SCALES, ScaleName
from freefast.settings import Device, GraphMode


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Run the report "Free vs Fast adversarial training" again: its runs, tables and figures.

    Raises: UserError where a setting is out of its range.
    """

    only: tuple[str, ...] = ()
    """What to make, of table-5.1, table-6.1, table-7.1, table-7.2 and figure-1 to figure-8; all where none is named.
    What the folder has of them already stays on its page."""

    scale: ScaleName = "full"
    """full: the report's settings; small, tiny: fewer epochs and images, narrower networks, in fp32; tiny takes minutes
    on two CPU cores."""

    dataset: DatasetName = "cifar10"
    """CIFAR-10, or what takes its place; digits has its own epsilon, steps in proportion, and resnet50_cifar for
    resnet50."""

    data_root: Path | None = None
    """Folder of imagefolder's or cifar10's files."""

    precision: AutoStr = AUTO
    """How to train, as of freefast train (auto: the scale's, of full the report's)."""

    seed: int = 0
    """Of every run."""

    device: Device = "auto"
    """Where to train; auto takes a GPU where there is one."""

    workers: int = 0
    """Processes that prepare batches; 0 prepares them on the device."""

    graph: GraphMode = "auto"
    """Whether a training step is one CUDA graph."""

    budget_minutes: float = math.inf
    """Minutes after which no further run or epoch is begun; the same command goes on."""

    out: Path = Path("runs/reproduce")
    """Folder of all; every run is a folder in its runs/."""

    def __post_init__(self) -> None:
        apply_types(self)
        if self.scale not in SCALES:
            raise UserError(f"scale: wanted one of {', '.join(SCALES)}, got {self.scale!r}")
        if not self.budget_minutes >= 0:
            raise UserError(f"budget_minutes: wanted a number of at least 0, got {self.budget_minutes}")
        chosen(self.only)
        self.runs()

    @property
    def contents(self) -> tuple[str, ...]:
        """Names of the tables and figures to make."""
        return chosen(self.only)

    def runs(self) -> dict[str, TrainConfig]:
        """The run of each recipe that tables and figures need."""
        return {recipe: self.run_of(recipe) for recipe in recipes_of(self.contents)}

    def kept(self) -> dict[str, Any]:
        """What all runs of a folder share, in JSON's types."""
        root = None if self.data_root is None else str(self.data_root.resolve())
        names = ("scale", "dataset", "precision", "seed")
        return {**{name: getattr(self, name) for name in names}, "data_root": root}

    def run_of(self, recipe: str) -> TrainConfig:
        """The run of one recipe."""
        settings = SCALES[self.scale].apply(recipes.read(f"report/{recipe}"))
        if self.dataset == "digits":
            settings = _for_digits(settings)
        if self.precision is not None:
            settings["precision"] = self.precision
        own = ("dataset", "data_root", "seed", "device", "workers", "graph")
        settings |= {name: getattr(self, name) for name in own}
        return TrainConfig(**settings, out=self.out / "runs" / recipe)


def _for_digits(settings: dict[str, Any]) -> dict[str, Any]:
    """With the data set's own epsilon, a step as long beside it, and a network for one channel."""
    changed = {name: value for name, value in settings.items() if name != "epsilon"}
    if "alpha" in settings:
        natural = TrainConfig(method=settings["method"], dataset="digits").epsilon
        changed["alpha"] = settings["alpha"] / settings["epsilon"] * natural
    return changed | ({"model": "resnet50_cifar"} if settings["model"] == "resnet50" else {})
