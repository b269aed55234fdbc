"""Natural accuracy and accuracy under PGD over a whole data split."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import functional
from freefast.attacks.base import device_of
from freefast.attacks.gradient import eval_mode
from freefast.attacks.health import GradientHealth
from freefast.data import ImageData, Loader, Split
from freefast.precision import Precision
from freefast.progress import track
from freefast.threat import ThreatModel


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
    batch_size: int = 256,
    seed: int = 0,
    device: torch.device | str | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate in eval mode; the model is left in the mode it was in.

    A sample's random start depends on the seed and its position in the split alone: the result does not depend on the
    batch size, and PGD with more steps goes on where PGD with fewer ended.

    dataset: its test split, or a split itself
    steps: numbers of PGD steps, one attack each
    restarts: random starts of an attack
    alpha: step size, pixel units; None takes epsilon / 4, 2/255 for 8/255
    device: where the model is; None asks the model, and the data where it has no parameters
    precision: how the model computes; None asks its weights

    Raises: TypeError where steps is one number; ValueError where steps or restarts are below 1 or alpha is negative.
    Source: Madry et al. 2017, section 5; the settings are those of Wong et al. 2020.
    """
    if isinstance(steps, int):
        raise TypeError(f"evaluate: steps: wanted several numbers such as (10, 20), got {steps}")
    if min(steps, default=1) < 1:
        raise ValueError(f"evaluate: steps: wanted at least 1, got {tuple(steps)}")
    if restarts < 1:
        raise ValueError(f"evaluate: restarts: wanted at least 1, got {restarts}")
    if alpha is not None and alpha < 0:
        raise ValueError(f"evaluate: alpha: wanted at least 0, got {alpha}")
    split = dataset.test if isinstance(dataset, ImageData) else dataset
    device = device_of(model, default=split.images.device) if device is None else torch.device(device)
    size = threat.epsilon / 4 if alpha is None else alpha
    copies = split.images.shape[1] if len(threat.mean) == 1 else 1  # one number for all channels
    loader = Loader(
        split, mean=threat.mean * copies, std=threat.std * copies,
        batch_size=batch_size, shuffle=False, augment=False, seed=0,
    )  # fmt: skip
    health = GradientHealth(device)
    precision = precision or Precision.of(model)
    start = time.perf_counter()

    def accuracy(name: str, count: int) -> float:
        correct = torch.zeros((), dtype=torch.int64, device=device)
        with track(progress, name, len(split), leave=False) as advance:
            for images, labels, index in _on(device, loader):
                if count:
                    images = functional.pgd(
                        model, images, labels, threat,
                        alpha=size, steps=count, restarts=restarts,
                        rng=ak.PhiloxState(seed, device), sample_index=index,
                        precision=precision, health=health,
                    )  # fmt: skip
                correct += _correct(model, images, labels, precision)
                advance(len(labels))
        if count:
            health.take().warn(f"PGD-{count}")
        return correct.item() / len(split)

    with eval_mode(model):
        natural = accuracy("Natural accuracy", 0)
        pgd = {count: accuracy(f"PGD-{count} accuracy", count) for count in steps}
    return Evaluation(natural=natural, pgd=pgd, samples=len(split), seconds=time.perf_counter() - start)


@torch.no_grad()
def _correct(model: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> Tensor:
    return (precision.logits(model, images).argmax(1) == labels).sum()


def _on(device: torch.device, loader: Loader) -> Iterator[tuple[Tensor, ...]]:
    for batch in loader.epoch(0):
        images = batch.images.to(device, memory_format=torch.channels_last)
        yield images, batch.labels.to(device), batch.positions.to(device)
