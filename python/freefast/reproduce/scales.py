"""How far the report's runs are shrunk for small machines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from freefast.config import TrainConfig
from freefast.data import DatasetName

ScaleName = Literal["tiny", "small", "full"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is taken of the report's settings; the networks stay what they are but for their width."""

    epochs: int = 1
    """Divides the epochs."""

    batch: int = 1
    """Divides the batch size."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings in the place of the report's."""

    def apply(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of a recipe, shrunk."""
        epochs, batch = settings["epochs"] // self.epochs, settings["batch_size"] // self.batch
        return {**settings, **self.changes, "epochs": epochs, "batch_size": batch}


SCALES: Mapping[ScaleName, Scale] = {
    "tiny": Scale(
        epochs=15, batch=4,
        changes={"limit_train": 96, "limit_test": 64, "width": 8, "precision": "fp32", "threads": 1},
    ),
    "small": Scale(
        epochs=3, changes={"limit_train": 10_000, "limit_test": 1000, "width": 16, "precision": "fp32"}
    ),
    "full": Scale(),
}  # fmt: skip
"""tiny is for minutes on two CPU cores, whose batches are too small to share out; small for a night there or a small
GPU; full is the report."""


_DATA: Mapping[DatasetName, str] = {
    "cifar10": "cifar10",
    "digits": "digits in the place of CIFAR-10, resnet50_cifar of ResNet50",
    "imagefolder": "images of a folder in the place of CIFAR-10",
    "fake": "made-up images in the place of CIFAR-10",
}
"""The data, and where they are not the report's, what they and a network of their own stand for."""


_NAMES = " Names of runs are those of the report's recipes; what was run stands in the columns and under Settings."


def described(name: ScaleName, run: TrainConfig) -> str:
    """What a reader must know of the figures, in one line.

    run: any of the queue's
    """
    scale = SCALES[name]
    data = f"{_DATA[run.dataset]}, epsilon {run.epsilon:.4g}, precision {_precision(run)}, seed {run.seed}"
    if name == "full":
        return f"Scale full: the report's epochs; {data}.{_NAMES if run.dataset == 'digits' else ''}"
    batch = "" if scale.batch == 1 else f"batches 1/{scale.batch} as large, "
    return (
        f"Scale {name}, which is not the report's: 1/{scale.epochs} of the epochs, {batch}at most {run.limit_train} "
        f"training and {run.limit_test} test images, networks of width {run.width} in the place of 64; {data}.{_NAMES}"
    )


def _precision(run: TrainConfig) -> str:
    as_the_report = run.master_weights is False and run.loss_scale == "none"
    trained = f"{run.precision} without master weights, as the report's" if as_the_report else run.precision
    return trained if run.evaluate_in == run.precision else f"{trained}, evaluated in {run.evaluate_in}"
