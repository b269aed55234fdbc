"""What every part of an evaluation needs to know."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from freefast.attacks.problem import classify
from freefast.data import Split
from freefast.data.dataset import to_pixels
from freefast.evaluation.partial import Partial, digest
from freefast.evaluation.verdicts import interval
from freefast.precision import Precision
from freefast.progress import Advance, track
from freefast.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model in eval mode, the samples to try it on, and how."""

    model: nn.Module
    split: Split
    threat: ThreatModel
    device: torch.device
    precision: Precision
    batch_size: int
    seed: int
    partial: Path | None
    progress: Progress | None

    def pixels(self, rows: slice | Tensor) -> Tensor:
        """Images in [0, 1], (n, C, H, W) float32 on the device."""
        return to_pixels(self.split.images[rows].to(self.device))

    def batches(self) -> Iterator[slice]:
        """All samples, in order."""
        for first in range(0, len(self.split), self.batch_size):
            yield slice(first, first + self.batch_size)

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """(n,) int64: predictions for images in [0, 1], -1 where logits are NaN, on the CPU."""
        return classify(self.precision.logits(self.model, self.threat.normalize(pixels))).cpu()

    def work(self, name: str, settings: str, columns: int, clean: Tensor) -> Partial:
        """What is known of an attack already.

        name: in the file's name
        settings: all that the verdicts depend on beside model and data
        clean: (N,) int64, predictions without an attack: a model whose code has changed has others
        """
        if self.partial is None:
            return Partial(None, "", len(self.split), columns)
        key = digest(f"{name} {settings} {self.precision} {self.seed}", self.split, self.model, clean)
        path = self.partial.with_name(f"{self.partial.name}.{name}.{key[:8]}.npz")
        return Partial(path, key, len(self.split), columns)

    @contextmanager
    def bar(self, name: str, work: Partial) -> Iterator["Bar"]:
        """A progress bar that tells the accuracy so far; what is known is kept when interrupted."""
        with work.keeping(), track(self.progress, name, len(self.split), leave=False) as advance:
            bar = Bar(name, work, self.split.labels.cpu(), advance)
            bar.tell()
            yield bar


class Bar:
    """The bar of one attack."""

    def __init__(self, name: str, work: Partial, labels: Tensor, advance: Advance) -> None:
        self._name, self._work, self._labels, self._advance = name, work, labels, advance
        self._shown = 0

    def tell(self) -> None:
        """Show what is done, the accuracy and its confidence interval.

        They are of the first samples that are all done: who is done is mostly fooled, while others still withstand.
        """
        work = self._work
        done, samples = int(work.done.sum()), int(work.done.long().cumprod(0).sum())
        right = int((work.prediction[:samples, -1] == self._labels[:samples]).sum())
        low, high = interval(right, samples)
        known = f": {right / samples:.1%} robust ({low:.1%} to {high:.1%})" if samples else ""
        self._advance(done - self._shown, f"{self._name}{known}")
        self._shown = done
