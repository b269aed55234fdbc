"""The evaluation of a model over a split."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from freefast.attacks import Attack
from freefast.attacks.base import device_of
from freefast.attacks.gradient import eval_mode
from freefast.attacks.health import GradientHealth
from freefast.data import ImageData, Split
from freefast.data.dataset import check_normalization
from freefast.errors import UserError
from freefast.evaluation import sanity
from freefast.evaluation.engine import Engine, Plan
from freefast.evaluation.job import Job
from freefast.evaluation.partial import Partial, weights_digest
from freefast.evaluation.verdicts import Verdicts
from freefast.precision import Precision
from freefast.progress import track
from freefast.threat import ThreatModel

_BATCH_SIZE, _CUDA_BATCH_SIZE = 128, 512
"""Samples at a time, unless told."""
_RESIDENT = 2**30
"""Bytes of uint8 images that are on the device at a time."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model scored."""

    natural: float
    """Accuracy on clean images, a fraction."""

    pgd: dict[int, float]
    """Accuracy under PGD by number of steps, fractions."""

    attacks: dict[str, float]
    """Accuracy under each other attack by its name, fractions."""

    samples: int
    """Images evaluated."""

    seconds: float
    """Time it took."""

    verdicts: Verdicts
    """What became of every sample."""

    def as_row(self) -> dict[str, float]:
        """The accuracies by the names that tables use: natural, pgd10, pgd20, ..., those of other attacks."""
        pgd = {f"pgd{steps}": value for steps, value in self.pgd.items()}
        return {"natural": self.natural, **pgd, **self.attacks}


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
    attacks: Mapping[str, Attack] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    precision: Precision | None = None,
    partial: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate in eval mode; the model is left in the mode it was in.

    PGD is the report's: a sample stops moving once it is misclassified, and of several restarts it keeps the one with
    the largest loss, in which it need not be misclassified though it was in another. One run of the most steps gives
    the accuracies of fewer on its way. Samples that are done make room for the next, so that steps are spent on none
    that is fooled already; steps that would repeat earlier ones are left out, unless the model answers the same image
    differently. A sample's random start depends on the seed, its position in the split and the restart alone, and so
    does the result, but for rounding.

    dataset: its test split, or a split itself
    steps: numbers of PGD steps, an accuracy each
    restarts: random starts of PGD
    alpha: step size of PGD, pixel units; None takes epsilon / 4, 2/255 for 8/255
    worst_case: fooled by any restart is fooled, as other libraries count
    full: make every step, also after a sample is fooled: the verdict is on the last image of the run
    attacks: others to run, by name, on the samples that are right without one, with the same ball and normalisation
    batch_size: samples at a time; None takes 128, on a CUDA device 512
    device: where the model is; None asks the model, and the data where it has no parameters
    precision: how the model computes; None asks its weights
    partial: start of the names of files that keep what is done, now and then and when interrupted; where they are there
        and of the same model, data and settings, the evaluation goes on from them; removed at the end

    Raises: TypeError where steps is one number; UserError, a ValueError, where steps, restarts or batch_size are below
        1, alpha is negative, the model does not give a logit for every class, or an attack's name, ball or aim does not
        fit.
    Warns: EvaluationWarning, GradientWarning where the result cannot be trusted.
    Source: Madry et al. 2017, section 5; settings and rule of Wong et al. 2020.
    """
    _check(steps, restarts, alpha, batch_size, seed)
    attacks = attacks or {}
    for name, attack in attacks.items():
        _check_attack(name, attack, threat)
    split = dataset.test if isinstance(dataset, ImageData) else dataset
    if len(threat.mean) > 1:  # one number is for all channels
        check_normalization(threat.mean, threat.std, split.images.shape[1])
    place = device_of(model, default=split.images.device) if device is None else torch.device(device)
    natural = _CUDA_BATCH_SIZE if place.type == "cuda" else _BATCH_SIZE
    job = Job(
        model=model, split=split, threat=threat, device=place, precision=precision or Precision.of(model),
        batch_size=batch_size or natural, seed=seed, partial=partial, progress=progress,
    )  # fmt: skip
    plan = Plan(
        threat=threat, alpha=threat.epsilon / 4 if alpha is None else alpha, steps=tuple(sorted(set(steps))),
        restarts=restarts, worst_case=worst_case, full=full, seed=seed,
    )  # fmt: skip
    start = time.perf_counter()
    with eval_mode(model), torch.inference_mode(False):
        steady = sanity.check(job)
        clean = _clean(job)
        pgd = _pgd(job, replace(plan, skip=steady), clean)
        others = {name: _attack(job, name, attack, clean) for name, attack in attacks.items()}
    verdicts = Verdicts(
        index=torch.arange(len(split)), label=split.labels.cpu(), clean=clean,
        steps=plan.steps, adversarial=pgd.prediction, fooled_step=pgd.fooled_step,
        attacks={name: work.prediction[:, 0] for name, work in others.items()},
    )  # fmt: skip
    sanity.check_verdicts(verdicts, [name for name, attack in attacks.items() if attack.black_box])
    for work in (pgd, *others.values()):
        work.remove()
    return Evaluation(
        natural=_share(verdicts.natural()),
        pgd={count: _share(verdicts.robust(count)) for count in steps},
        attacks={name: _share(verdicts.robust(name)) for name in attacks},
        samples=len(split), seconds=time.perf_counter() - start, verdicts=verdicts,
    )  # fmt: skip


def _check(steps: Sequence[int], restarts: int, alpha: float | None, batch_size: int | None, seed: int) -> None:
    if isinstance(steps, int):
        raise TypeError(f"evaluate: steps: wanted several numbers such as (10, 20), got {steps}")
    if min(steps, default=1) < 1:
        raise UserError(f"evaluate: steps: wanted at least 1, got {tuple(steps)}")
    if not 0 <= seed < 2**63:
        raise UserError(f"evaluate: seed: wanted an int in [0, 2**63), got {seed}")
    for name, value in (("restarts", restarts), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"evaluate: {name}: wanted at least 1, got {value}")
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise UserError(f"evaluate: alpha: wanted at least 0, got {alpha}")


def _check_attack(name: str, attack: Attack, threat: ThreatModel) -> None:
    """Raises: UserError where an attack's accuracy could not stand beside PGD's in a table."""
    if not name.isidentifier() or name in ("natural", "samples") or name.startswith("pgd"):
        raise UserError(f"evaluate: attacks: wanted a name as of a variable, not PGD's or natural, got {name!r}")
    if attack.targeted:
        raise UserError(f"evaluate: attacks: {name}: wanted an untargeted attack, got a targeted one")
    channels = max(len(threat.mean), len(attack.threat.mean))
    wanted, got = (_bounds(given, channels) for given in (threat, attack.threat))
    if wanted != got:
        raise UserError(f"evaluate: attacks: {name}: wanted the ball of {threat}, got {attack.threat}")


def _bounds(threat: ThreatModel, channels: int) -> tuple[object, ...]:
    """Norm, ball and box for so many channels."""
    rows = (threat.model_epsilon, threat.lower, threat.upper)
    return threat.norm, *(row * (channels // len(row)) for row in rows)


def _clean(job: Job) -> Tensor:
    """(N,) int64: predictions for the clean images."""
    predictions = []
    with track(job.progress, "Natural accuracy", len(job.split), leave=False) as advance:
        for rows in job.batches():
            predictions.append(job.predict(job.pixels(rows)))
            advance(len(predictions[-1]))
    return torch.cat(predictions)


def _pgd(job: Job, plan: Plan, clean: Tensor) -> Partial:
    work = job.work("pgd", repr(plan), len(plan.steps), clean)
    if not plan.steps or work.done.all():
        return work
    name = f"PGD-{plan.steps[-1]}"
    health = GradientHealth(job.device)
    resident = max(_RESIDENT // job.split.images[0].numel(), 1)
    with job.bar(name, work) as bar:
        for rows in work.left().split(resident):
            engine = Engine(
                job.model, job.split.images[rows].to(job.device), job.split.labels[rows].to(job.device),
                rows.to(job.device), plan, slots=job.batch_size, precision=job.precision, health=health,
            )  # fmt: skip
            for outcome in engine.run():
                work.take(*outcome.known(rows))
                bar.tell()
    health.take().warn(name)
    return work


def _attack(job: Job, name: str, attack: Attack, clean: Tensor) -> Partial:
    """One attack's work; samples that are wrong without it keep their clean prediction."""
    surrogate = "" if attack.model is job.model else weights_digest(attack.model)
    work = job.work(name, f"{attack.name} {attack.settings} {surrogate}", 1, clean)
    right = clean == job.split.labels.cpu()
    with job.bar(name, work) as bar:
        for batch in job.batches():
            rows = torch.arange(len(job.split))[batch]
            if work.done[rows].all():
                continue
            prediction = clean[rows].clone()
            tried = rows[right[rows]]
            if len(tried):
                labels = job.split.labels[tried].to(job.device)
                numbers = tried.to(job.device)
                adversarial = attack(job.pixels(tried), labels, rng=job.seed, sample_index=numbers)
                prediction[right[rows]] = job.predict(adversarial)
            work.take(rows, prediction.unsqueeze(1))
            bar.tell()
    return work


def _share(right: Tensor) -> float:
    return right.double().mean().item()
