"""A whole training run: epochs, metrics, checkpoints, the evaluation at the end."""

import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from freefast import reporting
from freefast.attacks.health import GradientWarning
from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.errors import UserError
from freefast.evaluation import evaluate
from freefast.progress import Advance, track
from freefast.training import checkpoint, results, setup
from freefast.training.captured import Batches, CapturedStep
from freefast.training.run_folder import RunFolder
from freefast.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run."""

    folder: Path
    """The run folder."""

    model: nn.Module
    """The trained model, in eval mode."""

    row: dict[str, Any]
    """The run's row of `results.json`."""

    metrics: list[dict[str, Any]]
    """One entry an epoch, as in `metrics.jsonl`."""


def train(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> TrainResult:
    """Train, evaluate and write the run folder.

    After every epoch the folder holds a checkpoint, the weights and the metrics of the epochs done: an interrupted
    run can be evaluated, and resumed to the same bits.

    resume: go on from the checkpoint in `config.out`, whose run has these settings but for device, workers and graph
    overwrite: replace the run in `config.out`

    Raises: UserError where data, device, model or folder are not as the settings say, the loss is not finite, or
        BatchNorm cannot take a last batch of one sample.
    """
    folder = RunFolder(config.out)
    if resume:
        folder.require_settings(config)
    device = setup.pick_device(config.device)
    data = setup.make_data(config)
    with setup.runtime(config.backend, config.threads, config.seed, device):
        batches = setup.make_batches(config, data, device)
        updates = config.epochs * len(batches) * config.updates_per_batch
        state = setup.make_state(config, data, updates, device)
        if resume:
            done = checkpoint.restore(state, folder.load_checkpoint(device), folder.path / "checkpoint.pt")
            folder.drop_metrics_after(done)
            if done < config.epochs:
                folder.drop_results()
        else:
            done = 0
            folder.create(config, overwrite)
            _save(folder, state, done)
        _epochs(config, state, batches, data, folder, done, progress)
        scores = evaluate(
            state.model, data, state.threat,
            steps=config.eval_steps, restarts=config.restarts, seed=config.seed,
            precision=state.precision, partial=folder.path / ".evaluation", progress=progress,
        )  # fmt: skip
        environment = reporting.environment.describe(device)
        row = results.finish(config, folder, scores, data.classes, environment, state.precision)
    return TrainResult(folder=folder.path, model=state.model.eval(), row=row, metrics=folder.read_metrics())


def _epochs(
    config: TrainConfig,
    state: TrainState,
    batches: Batches,
    data: ImageData,
    folder: RunFolder,
    done: int,
    progress: Progress | None,
) -> None:
    step = CapturedStep(state, setup.make_step(config), batches, config.batch_size, config.graph)
    samples = len(data.train)
    title = f"{config.method} {config.setting}".strip()
    with track(progress, title, config.epochs * samples, done=done * samples) as advance:
        for epoch in range(done + 1, config.epochs + 1):
            before = state.updates if state.scaler.is_enabled() else 0
            entry = {"epoch": epoch, **_epoch(state, step, batches, epoch, samples, advance)}
            if state.scaler.is_enabled():
                entry |= _scaling(state, len(batches) * config.updates_per_batch, state.updates - before)
            if config.method != "standard":
                entry |= _gradients(state, f"{config.method}, epoch {epoch}")
            if config.eval_every and epoch % config.eval_every == 0 and epoch < config.epochs:
                scores = evaluate(
                    state.model, data, state.threat,
                    steps=config.curve_steps, restarts=config.restarts, seed=config.seed,
                    precision=state.precision, progress=progress,
                )  # fmt: skip
                entry |= scores.as_row()
            folder.append_metrics(entry)
            _save(folder, state, epoch)


def _epoch(
    state: TrainState, step: CapturedStep, batches: Batches, epoch: int, samples: int, advance: Advance
) -> dict[str, float]:
    """One pass over the data; sums stay on the device until its end."""
    start = time.perf_counter()
    step.begin_epoch()
    for count in batches.epoch(epoch - 1):
        try:
            step(count)
        except ValueError as error:
            if count > 1:
                raise
            raise UserError(f"a batch of one sample: {error}: try another --batch-size or --limit-train") from error
        advance(count)
    loss_sum, correct, update = torch.cat([step.sums, state.scheduler.update]).tolist()
    if not math.isfinite(loss_sum):
        raise UserError(f"the loss is not finite in epoch {epoch}: try a smaller --lr-max")
    return {
        "train_loss": loss_sum / samples,
        "train_accuracy": correct / samples,
        "learning_rate": state.scheduler.rates[int(update)],
        "seconds": time.perf_counter() - start,
    }


def _scaling(state: TrainState, wanted: int, made: int) -> dict[str, float]:
    """What the loss scale did to the epoch's updates; warns where it left most of them out."""
    skipped, scale = wanted - made, state.scaler.get_scale()
    if skipped > wanted / 2:
        text = f"{skipped} of {wanted} updates left out: gradients overflow, the loss scale is now {scale:g}"
        warnings.warn(text, GradientWarning, stacklevel=2)
    return {"loss_scale": scale, "skipped_updates": skipped}


def _gradients(state: TrainState, attack: str) -> dict[str, float]:
    """What the epoch's attack met; warns where it cannot be trusted."""
    health = state.health.take()
    health.warn(attack)
    return {"zero_gradients": health.zero_share, "nonfinite_gradients": health.nonfinite}


def _save(folder: RunFolder, state: TrainState, epoch: int) -> None:
    folder.save_weights(state.model)
    folder.save_checkpoint(checkpoint.capture(state, epoch))
