"""A run's row, and the files that are made from it."""

from collections.abc import Mapping
from typing import Any

from rich.progress import Progress
from torch import nn

from freefast import reporting
from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.errors import UserError
from freefast.evaluation import evaluate
from freefast.precision import Precision
from freefast.training import setup
from freefast.training.run_folder import RunFolder


def load_model(folder: RunFolder, config: TrainConfig, data: ImageData, precision: Precision) -> nn.Module:
    """A run's model with its weights, made ready to compute as `precision` says, in eval mode, on the CPU.

    Raises: UserError where the weights are missing or are not this model's.
    """
    model = setup.make_model(config, data)
    try:
        model.load_state_dict(folder.load_weights())
    except RuntimeError as error:
        raise UserError(f"{folder.path}: model.safetensors does not fit {config.model}") from error
    return precision.prepare(model).eval()


def finish(
    config: TrainConfig,
    folder: RunFolder,
    model: nn.Module,
    data: ImageData,
    environment: Mapping[str, Any],
    precision: Precision,
    progress: Progress | None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate and write `results.json`, `curves.png` and `report.html`.

    environment: where the run was trained
    precision: how the model computes while it is evaluated
    before: the run's row until now, whose other PGD accuracies are kept where all else in it is the same

    Returns: the row
    """
    metrics = folder.read_metrics()
    scores = evaluate(
        model, data, setup.make_threat(config, data),
        steps=config.eval_steps, restarts=config.restarts, seed=config.seed, precision=precision, progress=progress,
    )  # fmt: skip
    seconds = [entry["seconds"] for entry in metrics]
    row = {
        "method": config.method,
        "model": config.model,
        "dataset": config.dataset,
        "setting": config.setting,
        "epsilon": config.epsilon,
        **scores.as_row(),
        "epochs": len(metrics),
        "train_minutes": sum(seconds) / 60,
        "epoch_seconds": sum(seconds) / len(seconds) if seconds else None,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "samples": scores.samples,
        "restarts": config.restarts,
        "precision": config.precision,
        "master_weights": config.master_weights,
        "loss_scale": config.loss_scale,
        "evaluated_in": precision.name,
    }
    row = _with_pgd_of(before or {}, row)
    reporting.results.write(folder.path, [row], environment)
    run = reporting.Run.load(folder.path)
    curves = folder.path / "curves.png"
    reporting.curves.plot([run], curves)
    title = f"{config.method} on {config.dataset}"
    reporting.report.write(folder.path, title=title, runs=[run], environment=environment, images=[curves])
    return row


def _with_pgd_of(before: Mapping[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The row with the accuracies that it lacks, in order of the steps; as it is if weights or settings differ."""
    if any(before.get(name) != value for name, value in row.items() if not name.startswith("pgd")):
        return row
    pgd = {name: value for name, value in {**before, **row}.items() if name.startswith("pgd")}
    ordered = dict(sorted(pgd.items(), key=lambda item: int(item[0].removeprefix("pgd"))))
    return {name: value for name, value in row.items() if name not in pgd} | ordered
