"""Fast epochs of a narrow PreActResNet18 on the CPU: ours beside the plain loop's, in turn, and their accuracies.

    python benchmarks/fast_epoch.py --data-root DIR [--samples N] [--held-out N] [--epochs N] [--batch N] [--width N]

DIR holds train/ and test/ of class folders, CIFAR-10's. Both loops start from the same weights, seed by seed, and train
on the same images for as many epochs. Ours is in bfloat16 where the CPU multiplies such numbers, else in float32, as
the plain loop always is. Fails where an epoch is not as much faster as wanted, or where the mean accuracies over the
seeds differ by more than their spread explains: Welch's t-test, a chance below 1 in 100. Writes benchmarks/results.
"""

import argparse
import statistics
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from comparison import write
from scipy.stats import ttest_ind

import freefast as ff
from freefast.bench import training
from freefast.bench.config import multiplies_bfloat16
from freefast.bench.training import Training
from freefast.bench.variants import Variant
from freefast.data import ImageData
from freefast.training import setup

SEEDS = (0, 1, 2)
GOALS = {"amp-bf16": 2.0, "fp32": 1.2}
"""Epochs of ours in one of the plain loop."""
CHANCE = 0.01
SCORES = ("natural", "pgd10")


def contenders() -> dict[str, Variant]:
    """By name."""
    precision = "amp-bf16" if multiplies_bfloat16() else "fp32"
    return {
        "ours": Variant(method="fast", who="ours", precision=precision),
        "plain loop": Variant(method="fast", who="plain"),
    }


def run(seed: int, data: ImageData, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds of each epoch and accuracies, by contender."""
    made: dict[str, Training] = {}
    for name, variant in contenders().items():
        config = ff.TrainConfig(
            method="fast", dataset="imagefolder", data_root=options.data_root, width=options.width, device="cpu",
            precision=variant.precision, batch_size=options.batch, epochs=options.epochs, seed=seed,
        )  # fmt: skip
        torch.manual_seed(seed)
        made[name] = training.make(variant, config, data)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(options.epochs):
        for name, one in made.items():
            start = time.perf_counter()
            for _ in islice(one.steps, len(data.train) // options.batch):
                pass
            seconds[name].append(time.perf_counter() - start)
    threat = setup.make_threat(config, data)
    scores = {name: ff.evaluate(one.model, data, threat, steps=(10,), seed=seed) for name, one in made.items()}
    return {
        name: {"epoch_s": seconds[name], "natural": scores[name].natural, "pgd10": scores[name].pgd[10]}
        for name in made
    }


def compared(runs: list[dict[str, dict[str, Any]]], score: str) -> dict[str, Any]:
    """Means and standard deviations over the seeds, and the chance of such a difference between equals."""
    values = {name: [run[name][score] for run in runs] for name in runs[0]}
    said: dict[str, Any] = {
        name: {"mean": statistics.mean(row), "std": statistics.stdev(row)} for name, row in values.items()
    }
    return said | {"chance": float(ttest_ind(*values.values(), equal_var=False).pvalue)}


def main() -> int:
    """Train, evaluate, write; 0 where ours is as fast as wanted and as accurate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    for name, default in (("samples", 1024), ("held-out", 500), ("epochs", 6), ("batch", 64), ("width", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    whole = options.samples // options.batch * options.batch
    data = ff.data.load("imagefolder", root=options.data_root, limit_train=whole, limit_test=options.held_out)
    runs = []
    for seed in SEEDS:
        runs.append(run(seed, data, options))
        print(runs[-1], flush=True)
    # The first epoch makes what is made once.
    ratios = [
        plain / ours
        for result in runs
        for ours, plain in zip(result["ours"]["epoch_s"][1:], result["plain loop"]["epoch_s"][1:], strict=True)
    ]
    precision = contenders()["ours"].precision
    result = {"precision": precision, "ratio": statistics.median(ratios), "ratios": ratios, "goal": GOALS[precision]}
    accuracy = {score: compared(runs, score) for score in SCORES}
    settings = {name: value for name, value in vars(options).items() if name != "data_root"}
    write("fast_epoch", {**result, "accuracy": accuracy, "runs": runs, "settings": settings})
    print(result, accuracy, sep="\n")
    differ = any(row["chance"] < CHANCE for row in accuracy.values())
    return int(result["ratio"] < GOALS[precision] or differ)


if __name__ == "__main__":
    sys.exit(main())
