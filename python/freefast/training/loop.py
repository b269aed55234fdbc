"""A whole training run: epochs, metrics, checkpoints, the evaluation at the end."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from freefast import reporting
from freefast.attacks.health import GradientWarning
from freefast.config import TrainConfig
from freefast.data import ImageData, Split
from freefast.errors import StoppedError, UserError
from freefast.evaluation import Evaluation, evaluate
from freefast.progress import Advance, track
from freefast.training import guard, results, runs, selection, setup
from freefast.training.captured import CapturedStep
from freefast.training.guard import Guard
from freefast.training.run_folder import RunFolder
from freefast.training.runs import Run
from freefast.training.state import TrainState

_REHEARSED = 6
"""Full batches of a rehearsal: those that run op by op, the capture of the graph, and its replays."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run."""

    folder: Path
    """The run folder."""

    model: nn.Module
    """The trained model with the weights that `select` takes, in eval mode."""

    row: dict[str, Any]
    """The run's row of `results.json`."""

    metrics: list[dict[str, Any]]
    """One entry an epoch, as in `metrics.jsonl`; epochs that were trained again after a rollback have several."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train, evaluate and write the run folder.

    After every epoch the folder holds a checkpoint, the weights and the metrics of the epochs done: an interrupted
    run can be evaluated, and resumed to the same bits.

    resume: go on from the checkpoint in `config.out`, whose run has these settings but for device, workers and graph
    overwrite: replace the run in `config.out`
    stop: asked before every epoch and before the evaluation at the end whether to stop there

    Raises: UserError where data, device, model or folder are not as the settings say, the loss is not finite, or
        BatchNorm cannot take a last batch of one sample; StoppedError where `stop` said so.
    Warns: OverfittingWarning where the guard's accuracy falls; EvaluationWarning where the test set chooses the epoch.
    """
    folder = RunFolder(config.out)
    if resume:
        folder.require_settings(config)
    device = setup.pick_device(config.device)
    data = setup.make_data(config)
    rows, watch = guard.hold_out(config, data.train)
    with setup.runtime(config.backend, config.threads, config.seed, device):
        content = folder.load_checkpoint(device) if resume else None
        run = runs.prepare(config, data, rows, device, content)
        if content is not None:
            folder.drop_metrics_after(content["lines"])
            run.history.extend(folder.read_metrics())
            if not content["ended"]:
                folder.drop_results()
        else:
            folder.create(config, overwrite)
            folder.save_weights(run.state.final_model())
            folder.save_checkpoint(run.checkpoint(run.done))
        run = _epochs(run, watch, folder, progress, stop)
        _go_on_unless(stop)
        model = _selected_model(run, folder)
        selection.warn(config, run.history)
        scores = _evaluate(run, model, config.eval_steps, progress, folder.path / ".evaluation")
        environment = reporting.environment.describe(device)
        row = results.finish(config, folder, scores, data.classes, environment, setup.evaluation_precision(config))
    return TrainResult(folder=folder.path, model=model.eval(), row=row, metrics=folder.read_metrics())


def rehearse(config: TrainConfig, data: ImageData) -> None:
    """Train a few batches, at a learning rate of 0, on made-up images of the shapes of `data`, and forget them.

    What a process does once, loading of libraries, plans and searches of cuDNN, torch.compile, is done then for
    training by these settings, in each image size and for the smaller last batch too.
    """
    device = setup.pick_device(config.device)
    rows, _ = guard.hold_out(config, data.train)
    trained = len(data.train) if rows is None else len(rows)
    samples = min(_REHEARSED * config.batch_size + trained % config.batch_size, trained)
    sizes = 2 if config.resize_epochs else 1
    short = dataclasses.replace(config, epochs=sizes, resize_epochs=sizes - 1, lr_max=0.0)
    if config.compile:
        torch.compiler.reset()  # the shapes of other runs count against the limit of compiled versions
    with setup.runtime(config.backend, config.threads, config.seed, device), track(None, "", 0) as advance:
        run = runs.prepare(short, dataclasses.replace(data, train=_made_up(data, samples)), None, device)
        step = run.make_step()
        for epoch in range(1, sizes + 1):
            _epoch(run, step, epoch, advance)


def _go_on_unless(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError


def _epochs(
    run: Run, watch: Guard | None, folder: RunFolder, progress: Progress | None, stop: Callable[[], bool]
) -> Run:
    """Train to the end. Returns: the run, or what took its place in a rollback."""
    config, epoch, step = run.config, run.done, run.make_step()
    title = f"{config.method} {config.setting}".strip()
    with track(progress, title, config.epochs * run.samples, done=run.done * run.samples) as advance:
        while not run.has_ended(epoch):
            _go_on_unless(stop)
            epoch += 1
            entry = {"epoch": epoch, **_trained(run, step, epoch, advance)}
            entry |= _evaluated(run, epoch, progress)
            entry |= watch.check(run.state) if watch else {}
            run.history.append(entry)
            entry |= guard.judge(run.history, config)
            folder.append_metrics(entry)
            _keep(folder, run, epoch)
            if guard.rolls_back(entry):
                run = runs.roll_back(run, folder.load_checkpoint(run.device, "best.pt"))
                advance((run.done - epoch) * run.samples)
                epoch, step = run.done, run.make_step()
            folder.save_checkpoint(run.checkpoint(epoch))
    return run


def _trained(run: Run, step: CapturedStep, epoch: int, advance: Advance) -> dict[str, float]:
    """An epoch's training and what there is to say of it."""
    config, state = run.config, run.state
    before = state.updates if state.scaler.is_enabled() else 0
    entry = _epoch(run, step, epoch, advance)
    if epoch == run.done + 1:
        entry["setup_seconds"] = run.seconds
    if state.scaler.is_enabled():
        entry |= _scaling(state, len(run.batches) * config.updates_per_batch, state.updates - before)
    if config.method != "standard":
        entry |= _gradients(state, f"{config.method}, epoch {epoch}")
    return entry


def _evaluated(run: Run, epoch: int, progress: Progress | None) -> dict[str, float]:
    """Accuracies on the test set where the epoch has an evaluation, the last one only where these choose weights."""
    config, state = run.config, run.state
    is_last = epoch == config.epochs
    if config.eval_every == 0 or (config.select != "report" if is_last else epoch % config.eval_every):
        return {}
    return _evaluate(run, state.final_model(), config.curve_steps, progress).as_row()


def _evaluate(
    run: Run, model: nn.Module, steps: tuple[int, ...], progress: Progress | None, partial: Path | None = None
) -> Evaluation:
    """PGD on the test set; the model is left as it is."""
    config, precision = run.config, setup.evaluation_precision(run.config)
    return evaluate(
        precision.copy_of(model), run.data, run.state.threat,
        steps=steps, restarts=config.restarts, seed=config.seed, precision=precision, partial=partial,
        progress=progress,
    )  # fmt: skip


def _keep(folder: RunFolder, run: Run, epoch: int) -> None:
    """Write the weights of the newest epoch where it is the guard's best, or the one that counts so far."""
    entry, model = run.history[-1], run.state.final_model()
    if guard.best(run.history) is entry:
        folder.save_weights(model, "best.safetensors")
        if run.config.on_collapse == "rollback":
            folder.save_checkpoint(run.checkpoint(epoch), "best.pt")
    if selection.selected(run.config, run.history) is entry:
        folder.save_weights(model)


def _selected_model(run: Run, folder: RunFolder) -> nn.Module:
    """The trained model with the weights that count."""
    model = run.state.final_model()
    if run.history and selection.selected(run.config, run.history) is not run.history[-1]:
        model.load_state_dict(folder.load_weights())
    return model


def _epoch(run: Run, step: CapturedStep, epoch: int, advance: Advance) -> dict[str, float]:
    """One pass over the data; sums stay on the device until its end."""
    start, state, samples = time.perf_counter(), run.state, run.samples
    with setup.cudnn(search=run.config.cudnn_search):
        state.resize(setup.image_size(run.config, run.data, epoch))
        step.begin_epoch()
        for count in run.batches.epoch(epoch - 1):
            try:
                step(count)
            except ValueError as error:
                if count > 1:
                    raise
                wanted = "try another --batch-size or --limit-train"
                raise UserError(f"a batch of one sample: {error}: {wanted}") from error
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


def _made_up(data: ImageData, samples: int) -> Split:
    """Random pixels and labels in the shapes of a data set's."""
    random = torch.Generator().manual_seed(0)
    shape = (samples, *data.train.images.shape[1:])
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    return Split(images=images, labels=torch.randint(0, len(data.classes), (samples,), generator=random))
