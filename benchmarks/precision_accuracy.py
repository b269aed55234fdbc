"""Accuracies of half precision beside float32: Free and Fast on digits, three seeds. Writes benchmarks/results."""

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison import write

from freefast import TrainConfig, train

SEEDS = (0, 1, 2)
METHODS = ("free", "fast")
POINTS = 0.03  # mean accuracies may part by so much


def accuracies(method: str, precision: str, seed: int) -> dict[str, float]:
    """Natural and PGD-50 accuracy of one run, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            method=method, precision=precision, seed=seed, device="cpu", eval_steps=(50,), out=Path(folder) / "run"
        )
        row = train(config).row
    return {"natural": row["natural"], "pgd50": row["pgd50"]}


def main() -> int:
    """Train all; 0 where every mean is within 3 points of float32's."""
    runs: list[dict[str, Any]] = []
    for method, precision, seed in itertools.product(METHODS, ("fp32", "half-bf16"), SEEDS):
        runs.append({"method": method, "precision": precision, "seed": seed, **accuracies(method, precision, seed)})
        print(runs[-1], flush=True)
    differences = {
        f"{method} {score}": sum(
            run[score] * (1 if run["precision"] == "fp32" else -1) for run in runs if run["method"] == method
        ) / len(SEEDS)
        for method, score in itertools.product(METHODS, ("natural", "pgd50"))
    }  # fmt: skip
    write("precision_accuracy", {"runs": runs, "float32 minus half-bf16": differences, "allowed": POINTS})
    print(differences)
    return int(any(abs(difference) > POINTS for difference in differences.values()))


if __name__ == "__main__":
    sys.exit(main())
