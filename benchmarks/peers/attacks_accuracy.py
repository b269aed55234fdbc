"""Robust accuracies under our attacks beside those under torchattacks' on the same digits. Writes benchmarks/results.

torchattacks' Square never places a square at the last row or column, since its random_int leaves out the upper end; the
paper's places go up to the edge (algorithms 2 and 3). It is measured as it is and with every place.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
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
SAMPLES, STEPS, QUERIES = 1000, 50, 1000
SEEDS = {"Square": 4, "APGDT": 2, "APGD dlr": 6, "APGD ce": 6}
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


def score(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy."""
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def compare(model: nn.Module, norm: str, attack: str) -> dict[str, Any]:
    """Accuracies under each contender over the seeds, their means, and how far the means are apart."""
    torch.set_num_threads(1)
    images, labels = digits()
    accuracies: dict[str, list[float]] = {}
    for seed in range(SEEDS[attack]):
        for name, contender in contenders(model, norm, attack, seed).items():
            accuracies.setdefault(name, []).append(score(model, contender(images, labels), labels))
    means = {name: mean(values) for name, values in accuracies.items()}
    peer = "torchattacks, every place" if attack == "Square" else "torchattacks"
    return {
        "attack": attack,
        "norm": norm,
        "epsilon": EPSILONS[norm],
        "accuracies": accuracies,
        "means": means,
        "compared with": peer,
        "difference": means["freefast"] - means[peer],
    }


def main() -> int:
    """Attack one model with all; 0 where every difference of means is within half a point."""
    torch.set_num_threads(1)
    model = fast_model()
    images, labels = digits()
    comparisons = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(compare, model, norm, attack) for attack, norm in itertools.product(SEEDS, NORMS)]
        for task in as_completed(tasks):
            comparisons.append(task.result())
            print(comparisons[-1], flush=True)
    facts = {
        "samples": SAMPLES, "steps": STEPS, "queries": QUERIES, "natural": score(model, images, labels),
        "torchattacks": torchattacks.__version__, "allowed": POINTS,
    }  # fmt: skip
    write("attacks_accuracy", {**facts, "comparisons": comparisons})
    return int(any(abs(comparison["difference"]) > POINTS for comparison in comparisons))


if __name__ == "__main__":
    sys.exit(main())
