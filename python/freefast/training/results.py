"""A run's row, and the files that are made from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from freefast import reporting
from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.errors import UserError
from freefast.evaluation import Evaluation, files
from freefast.precision import Precision
from freefast.training import guard, selection, setup
from freefast.training.run_folder import RunFolder


def load_model(folder: RunFolder, config: TrainConfig, data: ImageData, precision: Precision) -> nn.Module:
    """A run's model with its weights, made ready to compute as `precision` says, in eval mode, on the CPU.

    Raises: UserError where the weights are missing or are not this model's.
    """
    refusal = f"{folder.path}: model.safetensors does not fit {config.model}"
    model = with_weights(setup.make_model(config, data), folder.load_weights(), refusal)
    return precision.prepare(model).eval()


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], refusal: str) -> nn.Module:
    """The model with these weights and statistics.

    Raises: UserError with the refusal where they are not this model's.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise UserError(refusal) from error
    return model


def finish(
    config: TrainConfig,
    folder: RunFolder,
    scores: Evaluation,
    classes: Sequence[str],
    environment: Mapping[str, Any],
    precision: Precision,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `results.json`, `curves.png`, `report.html` and the files of the evaluation.

    environment: where the run was trained
    precision: how the model computed while it was evaluated
    before: the run's row until now, whose other PGD accuracies are kept where all else in it is the same

    Returns: the row
    """
    metrics = folder.read_metrics()
    files.write(folder.path, scores, classes)
    seconds = [entry["seconds"] for entry in metrics]
    row = {
        "method": config.method,
        "model": config.model,
        "dataset": config.dataset,
        "setting": guard.setting(config, selection.until_selected(config, metrics)),
        "epsilon": config.epsilon,
        **scores.as_row(),
        "epochs": metrics[-1]["epoch"] if metrics else 0,
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
        "device": environment["device"],
        **selection.summary(config, metrics),
        **guard.summary(metrics),
        **guard.judge_end(metrics, config, scores.as_row()),
    }
    row = _with_pgd_of(before or {}, row)
    reporting.results.write(folder.path, [row], environment)
    run = reporting.Run.load(folder.path)
    curves = folder.path / "curves.png"
    reporting.curves.plot([run], curves)
    sections = [*reporting.falls.section([run]), reporting.curves.section(curves)]
    title = f"{config.method} on {config.dataset}"
    reporting.report.write(folder.path, title=title, runs=[run], sections=sections)
    return row


def _with_pgd_of(before: Mapping[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The row with the accuracies and the fall that it lacks, in order of the steps; as it is if weights or settings
    differ."""
    if any(before.get(name) != value for name, value in row.items() if not name.startswith("pgd")):
        return row
    pgd = {name: value for name, value in {**before, **row}.items() if name.startswith("pgd")}
    ordered = dict(sorted(pgd.items(), key=lambda item: int(item[0].removeprefix("pgd"))))
    fall = {"collapse": before["collapse"]} if "collapse" in before else {}
    return {**fall, **{name: value for name, value in row.items() if name not in pgd}} | ordered
