"""What an evaluation leaves in a folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

from freefast.evaluation.evaluate import Evaluation

FILES = ("verdicts.npz", "classes.csv")


def write(folder: Path, scores: Evaluation, classes: Sequence[str]) -> None:
    """Write `verdicts.npz`, a row a sample, and `classes.csv`, a line a class: its name, samples and accuracies."""
    scores.verdicts.save(folder / "verdicts.npz")
    table = scores.verdicts.by_class()
    with open(folder / "classes.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["class", "samples", *scores.as_row()])
        writer.writeheader()
        writer.writerows({"class": classes[label], **row} for label, row in table.items())
