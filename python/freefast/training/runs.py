"""A training run between two epochs: made anew, gone on with, or put back to its best epoch."""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.training import checkpoint, guard, setup
from freefast.training.captured import Batches, CapturedStep
from freefast.training.guard import Entry
from freefast.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the epochs work with."""

    config: TrainConfig
    data: ImageData

    rows: Tensor | None
    """(n,) int64, places of the training samples; None for all."""

    batches: Batches
    state: TrainState

    done: int
    """Epochs done when it was prepared."""

    seconds: float
    """Time that it took to prepare."""

    history: list[Entry] = field(default_factory=list)
    """Metrics so far, those of epochs before a rollback among them."""

    @property
    def samples(self) -> int:
        """That an epoch trains on."""
        return len(self.data.train) if self.rows is None else len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.state.delta.device

    def has_ended(self, epoch: int) -> bool:
        """Whether training is over behind an epoch."""
        return epoch >= self.config.epochs or guard.has_stopped(self.history)

    def make_step(self) -> CapturedStep:
        """The method's step, its alpha as small as rollbacks have made it."""
        config, rollbacks = self.config, guard.rollbacks(self.history)
        if rollbacks:
            config = dataclasses.replace(config, alpha=guard.alpha(config, rollbacks))
        return CapturedStep(self.state, setup.make_step(config), self.batches, config.batch_size, config.graph)

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """The state, how many entries of metrics it knows, and whether training is over."""
        ended = {"lines": len(self.history), "ended": self.has_ended(epoch)}
        return {**checkpoint.capture(self.state, epoch), **ended}


def prepare(
    config: TrainConfig,
    data: ImageData,
    rows: Tensor | None,
    device: torch.device,
    content: dict[str, Any] | None = None,
) -> Run:
    """From images in the host's memory to the state before the next update.

    rows: (n,) int64, places of the training samples; None for all
    content: of the checkpoint to go on from
    """
    start = time.perf_counter()
    done = content["epoch"] if content else 0
    size = setup.image_size(config, data, done)
    batches = setup.make_batches(config, data, device, rows)
    state = setup.make_state(config, data, config.epochs * len(batches) * config.updates_per_batch, device)
    state.resize(size)
    if content is not None:
        checkpoint.restore(state, content, config.out / "checkpoint.pt")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    return Run(config=config, data=data, rows=rows, batches=batches, state=state, done=done, seconds=seconds)


def roll_back(run: Run, content: dict[str, Any]) -> Run:
    """The run as it would go on from a checkpoint after an interruption, but with all of its history."""
    before = prepare(run.config, run.data, run.rows, run.device, content)
    before.history.extend(run.history)
    return before
