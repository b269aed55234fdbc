"""Several methods under one budget, one table."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import nn

from freefast import reporting
from freefast.attacks import PGD
from freefast.attacks.gradient import eval_mode
from freefast.config import METHODS, OWNERS, Method, TrainConfig
from freefast.data import Split
from freefast.errors import UserError
from freefast.options import AUTO, AutoPixels
from freefast.precision import Precision
from freefast.settings import Settings
from freefast.training import setup
from freefast.training.loop import train
from freefast.training.results import load_model
from freefast.training.run_folder import RunFolder

_EXAMPLES = 10


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
    """Train, evaluate and write the table, curves, examples and report into `config.out`.

    Runs of the same settings that are in the folder already are taken as they are, or gone on with where they were
    interrupted.

    overwrite: train every method anew

    Returns: the rows of the table
    Raises: UserError as `train`, or where the folder holds a run of other settings.
    """
    for method in config.methods:
        run = config.train_config(method)
        state = "new" if overwrite else found(run)
        if state != "finished":
            train(run, resume=state != "new", overwrite=overwrite, progress=progress)
    folders = [config.out / method for method in config.methods]
    examples = [_examples(RunFolder(folder), config.out) for folder in folders]
    return summarize(folders, config.out, examples)


def require_settings(config: CompareConfig) -> None:
    """Raises: UserError where the folder holds a run of other settings."""
    for method in config.methods:
        folder = RunFolder(config.out / method)
        if (folder.path / "config.json").exists():
            folder.require_settings(config.train_config(method))


def summarize(folders: Sequence[Path], out: Path, examples: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Write the table, `results.json`, `curves.png` and `report.html` of some run folders. Returns: the rows."""
    runs = [reporting.Run.load(folder) for folder in folders]
    rows = [dict(run.row) for run in runs]
    environment = reporting.results.read(folders[0]).environment
    out.mkdir(parents=True, exist_ok=True)
    reporting.results.write(out, rows, environment)
    reporting.table.write(rows, out)
    curves = out / "curves.png"
    reporting.curves.plot(runs, curves)
    data = ", ".join(dict.fromkeys(str(row["dataset"]) for row in rows))
    title = f"{', '.join(run.method for run in runs)} on {data}"
    reporting.report.write(out, title=title, runs=runs, environment=environment, images=[curves, *examples])
    return rows


def found(config: TrainConfig) -> Literal["new", "begun", "trained", "finished"]:
    """What the run's folder holds of these settings; a finished run is trained and evaluated.

    Raises: UserError where it holds a run of others.
    """
    folder = RunFolder(config.out)
    if not (config.out / "config.json").exists():
        return "new"
    folder.require_settings(config)
    if not folder.load_checkpoint(torch.device("cpu"))["ended"]:
        return "begun"
    return "finished" if (config.out / "results.json").exists() else "trained"


def _examples(folder: RunFolder, out: Path) -> Path:
    """Draw a test image of every class, attacked, for one run."""
    config = folder.read_config()
    data = setup.make_data(config)
    device = setup.pick_device(config.device)
    precision = setup.make_precision(config)
    model = load_model(folder, config, data, precision).to(device)
    chosen = _one_a_class(data.test, _EXAMPLES)
    clean = (data.test.images[chosen].float() / 255).to(device)
    labels = data.test.labels[chosen].to(device)
    threat = setup.make_threat(config, data)
    attack = PGD(
        model,
        eps=config.epsilon,
        alpha=config.epsilon / 4,
        steps=50,
        rng=config.seed,
        mean=data.mean,
        std=data.std,
        precision=precision,
    )
    adversarial = attack(clean, labels)
    path = out / f"examples_{config.method}.png"
    predictions = [_predict(model, threat.normalize(images), precision).cpu() for images in (clean, adversarial)]
    reporting.examples.plot(
        clean.cpu(), adversarial.cpu(), labels.cpu(), predictions[0], predictions[1], data.classes, path
    )
    return path


def _predict(model: nn.Module, x: torch.Tensor, precision: Precision) -> torch.Tensor:
    with eval_mode(model), torch.no_grad():
        return precision.logits(model, x).argmax(1)


def _one_a_class(split: Split, most: int) -> list[int]:
    """Positions of the first image of each class, of at most so many classes."""
    first: dict[int, int] = {}
    for position, label in enumerate(split.labels.tolist()):
        first.setdefault(label, position)
    return [first[label] for label in sorted(first)[:most]]
