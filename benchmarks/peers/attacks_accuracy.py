"""Robust accuracies under our attacks beside those under torchattacks' on the same digits. Writes benchmarks/results.

torchattacks' Square never places a square at the last row or column, since its random_int leaves out the upper end; the
paper's places go up to the edge (algorithms 2 and 3). It is measured as it is and with every place.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))
from comparison import write

from freefast import TrainConfig, attacks, data, train

EPSILONS = {"linf": 0.2, "l2": 1.0}  # pixel units
NORMS = {"linf": "Linf", "l2": "L2"}  # torchattacks' names
SAMPLES, STEPS, QUERIES = 1000, 100, 1000
SEEDS = {"APGD ce": 8, "APGD dlr": 8, "APGDT": 3, "Square": 5}
POINTS = 0.005  # mean accuracies may part by so much

Attacks = dict[str, Callable[[Tensor, Tensor], Tensor]]


class SquareEverywhere(torchattacks.Square):
    """torchattacks' Square with the last row and column among its places."""

    def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> Tensor:
        """Integers from low to high, both included; the original leaves out high."""
        return torch.randint(low, high + 1, tuple(shape))


def contenders(model: nn.Module, norm: str, attack: str, seed: int) -> Attacks:
    """One attack, ours and theirs, of the same budget."""
    ours: dict[str, Any] = {"eps": EPSILONS[norm], "norm": norm, "rng": seed}
    theirs: dict[str, Any] = {"eps": EPSILONS[norm], "norm": NORMS[norm], "seed": seed}
    match attack.split():
        case ["APGD", loss]:
            return {
                "freefast": attacks.APGD(model, steps=STEPS, loss=loss, **ours),
                "torchattacks": torchattacks.APGD(model, steps=STEPS, loss=loss, **theirs),
            }
        case ["APGDT"]:
            return {
                "freefast": attacks.APGDT(model, steps=STEPS, **ours),
                "torchattacks": torchattacks.APGDT(model, steps=STEPS, n_classes=10, **theirs),
            }
        case _:
            return {
                "freefast": attacks.Square(model, queries=QUERIES, **ours),
                "torchattacks": torchattacks.Square(model, n_queries=QUERIES, **theirs),
                "torchattacks, every place": SquareEverywhere(model, n_queries=QUERIES, **theirs),
            }


def fast_model() -> nn.Module:
    """A small network that Fast has trained on digits."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            method="fast", model="small_cnn", dataset="digits", device="cpu", eval_steps=(10,), out=Path(folder) / "run"
        )
        return train(config).model


def digits() -> tuple[Tensor, Tensor]:
    """All test digits, and training digits up to the number."""
    splits = data.load("digits")
    images = torch.cat([splits.test.images, splits.train.images])[:SAMPLES]
    return images / 255, torch.cat([splits.test.labels, splits.train.labels])[:SAMPLES]


def score(model: nn.Module, attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> list[float]:
    """Accuracy on the attacked images; seconds."""
    start = time.perf_counter()
    adversarial = attack(images, labels)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        return [(model(adversarial).argmax(1) == labels).double().mean().item(), seconds]


def compare(model: nn.Module, norm: str, attack: str) -> dict[str, Any]:
    """Accuracies and seconds of each contender over the seeds, their means, and how far the means are apart."""
    images, labels = digits()
    scores: dict[str, list[list[float]]] = {}
    for seed in range(SEEDS[attack]):
        for name, contender in contenders(model, norm, attack, seed).items():
            scores.setdefault(name, []).append(score(model, contender, images, labels))
    accuracies = {name: [accuracy for accuracy, _ in runs] for name, runs in scores.items()}
    means = {name: mean(values) for name, values in accuracies.items()}
    peer = "torchattacks, every place" if attack == "Square" else "torchattacks"
    return {
        "attack": attack,
        "norm": norm,
        "epsilon": EPSILONS[norm],
        "accuracies": accuracies,
        "means": means,
        "seconds": {name: mean(seconds for _, seconds in runs) for name, runs in scores.items()},
        "compared with": peer,
        "difference": means["freefast"] - means[peer],
    }


def main() -> int:
    """Attack one model with all; 0 where every difference of means is within half a point."""
    torch.set_num_threads(1)
    model = fast_model()
    images, labels = digits()
    natural, _ = score(model, lambda images, _: images, images, labels)
    comparisons = []
    for norm in NORMS:
        for attack in SEEDS:
            comparisons.append(compare(model, norm, attack))
            print(comparisons[-1], flush=True)
    facts = {
        "samples": SAMPLES, "steps": STEPS, "queries": QUERIES, "natural": natural,
        "torchattacks": torchattacks.__version__, "allowed": POINTS,
    }  # fmt: skip
    write("attacks_accuracy", {**facts, "comparisons": comparisons})
    return int(any(abs(comparison["difference"]) > POINTS for comparison in comparisons))


if __name__ == "__main__":
    sys.exit(main())
