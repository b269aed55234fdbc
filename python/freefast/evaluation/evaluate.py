"""The evaluation of a model over a split."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from freefast.attacks.base import device_of
from freefast.attacks.gradient import eval_mode
from freefast.attacks.health import GradientHealth
from freefast.data import ImageData, Split
from freefast.data.dataset import check_normalization
from freefast.evaluation import sanity
from freefast.evaluation.engine import Engine, Plan
from freefast.evaluation.partial import Partial
from freefast.evaluation.verdicts import Verdicts, interval
from freefast.precision import Precision
from freefast.progress import track
from freefast.threat import ThreatModel

_RESIDENT = 2**30
"""Bytes of uint8 images that are on the device at a time."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model scored."""

    natural: float
    """Accuracy on clean images, a fraction."""

    pgd: dict[int, float]
    """Accuracy under PGD by number of steps, fractions."""

    samples: int
    """Images evaluated."""

    seconds: float
    """Time it took."""

    verdicts: Verdicts
    """What became of every sample."""

    def as_row(self) -> dict[str, float]:
        """The accuracies by the names that tables use: natural, pgd10, pgd20, ..."""
        return {"natural": self.natural, **{f"pgd{steps}": value for steps, value in self.pgd.items()}}


def evaluate(
    model: nn.Module,
    dataset: ImageData | Split,
    threat: ThreatModel,
    *,
    steps: Sequence[int] = (10, 20, 50),
    restarts: int = 1,
    alpha: float | None = None,
    worst_case: bool = False,
    full: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str | None = None,
    precision: Precision | None = None,
    partial: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate in eval mode; the model is left in the mode it was in.

    The attack is the report's: a sample stops moving once it is misclassified, and of several restarts it keeps the one
    with the largest loss, in which it need not be misclassified though it was in another. One run of the most steps
    gives the accuracies of fewer on its way. Samples that are done make room for the next, so that steps are spent on
    none that is fooled already; steps that would repeat earlier ones are left out, unless the model answers the same
    image differently. A sample's random start depends on the seed, its position in the split and the restart alone, and
    so does the result, but for rounding.

    dataset: its test split, or a split itself
    steps: numbers of PGD steps, an accuracy each
    restarts: random starts of an attack
    alpha: step size, pixel units; None takes epsilon / 4, 2/255 for 8/255
    worst_case: fooled by any restart is fooled, as other libraries count
    full: make every step, also after a sample is fooled: the verdict is on the last image of the run
    batch_size: samples at a time
    device: where the model is; None asks the model, and the data where it has no parameters
    precision: how the model computes; None asks its weights
    partial: file to keep what is done in, now and then and when interrupted; where it is there and of the same model,
        data and settings, the evaluation goes on from it; removed at the end

    Raises: TypeError where steps is one number; ValueError where steps, restarts or batch_size are below 1 or alpha is
        negative.
    Warns: EvaluationWarning, GradientWarning where the result cannot be trusted.
    Source: Madry et al. 2017, section 5; settings and rule of Wong et al. 2020.
    """
    _check(steps, restarts, alpha, batch_size)
    split = dataset.test if isinstance(dataset, ImageData) else dataset
    if len(threat.mean) > 1:  # one number is for all channels
        check_normalization(threat.mean, threat.std, split.images.shape[1])
    device = device_of(model, default=split.images.device) if device is None else torch.device(device)
    plan = Plan(
        threat=threat, alpha=threat.epsilon / 4 if alpha is None else alpha, steps=tuple(sorted(set(steps))),
        restarts=restarts, worst_case=worst_case, full=full, seed=seed,
    )  # fmt: skip
    precision = precision or Precision.of(model)
    start = time.perf_counter()
    sanity.check_threat(threat, split.images[0].numel())
    with eval_mode(model), torch.inference_mode(False):
        steady = sanity.check_model(model, _normalized(split.images[:batch_size], threat, device), precision)
        clean = _clean(model, split, threat, batch_size, device, precision, progress)
        work = Partial(partial, plan, split, model, precision)
        if plan.steps:
            _attack(model, split, replace(plan, skip=steady), work, batch_size, device, precision, progress)
    verdicts = Verdicts(
        index=torch.arange(len(split)), label=split.labels.cpu(), clean=clean,
        steps=plan.steps, adversarial=work.prediction, fooled_step=work.fooled_step,
    )  # fmt: skip
    pgd = {count: verdicts.robust(count).double().mean().item() for count in steps}
    sanity.check_steps(pgd, len(split))
    work.remove()
    return Evaluation(
        natural=verdicts.natural().double().mean().item(), pgd=pgd, samples=len(split),
        seconds=time.perf_counter() - start, verdicts=verdicts,
    )  # fmt: skip


def _check(steps: Sequence[int], restarts: int, alpha: float | None, batch_size: int) -> None:
    if isinstance(steps, int):
        raise TypeError(f"evaluate: steps: wanted several numbers such as (10, 20), got {steps}")
    if min(steps, default=1) < 1:
        raise ValueError(f"evaluate: steps: wanted at least 1, got {tuple(steps)}")
    for name, value in (("restarts", restarts), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"evaluate: {name}: wanted at least 1, got {value}")
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise ValueError(f"evaluate: alpha: wanted at least 0, got {alpha}")


@torch.no_grad()
def _clean(
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    progress: Progress | None,
) -> Tensor:
    """(N,) int64: predictions for the clean images."""
    predictions = []
    with track(progress, "Natural accuracy", len(split), leave=False) as advance:
        for images in split.images.split(batch_size):
            predictions.append(precision.logits(model, _normalized(images, threat, device)).argmax(1))
            advance(len(images))
    return torch.cat(predictions).cpu()


def _attack(
    model: nn.Module,
    split: Split,
    plan: Plan,
    work: Partial,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    progress: Progress | None,
) -> None:
    """Run PGD on what is left of the work."""
    health = GradientHealth(device)
    name = f"PGD-{plan.steps[-1]}"
    with work.keeping(), track(progress, name, len(split), done=int(work.done.sum()), leave=False) as advance:
        for rows in _chunks(work.left(), split):
            engine = Engine(
                model, split.images[rows].to(device), split.labels[rows].to(device), rows.to(device), plan,
                slots=batch_size, precision=precision, health=health,
            )  # fmt: skip
            before = 0
            for done in engine.run():
                work.take(rows, engine.outcome)
                advance(done - before, _running(name, work, split.labels))
                before = done
    health.take().warn(name)


def _chunks(rows: Tensor, split: Split) -> Iterator[Tensor]:
    """Rows whose images are on the device together."""
    yield from rows.split(max(_RESIDENT // split.images[0].numel(), 1)) if len(rows) else ()


def _running(name: str, work: Partial, labels: Tensor) -> str:
    """What is known of the accuracy so far, with its confidence interval."""
    right = int((work.prediction[:, -1] == labels).logical_and(work.done).sum())
    low, high = interval(right, samples := int(work.done.sum()))
    return f"{name}: {right / max(samples, 1):.1%} robust ({low:.1%} to {high:.1%})"


def _normalized(images: Tensor, threat: ThreatModel, device: torch.device) -> Tensor:
    """uint8 pixels (N, C, H, W) in model units, float32."""
    pixels = images.to(device).to(torch.float32, memory_format=torch.channels_last).div_(255)
    return threat.normalize(pixels)
