"""What became of every sample, and the file that keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from freefast.atomic import replace
from freefast.errors import UserError

CONFIDENCE = 0.95

_ARRAYS = ("index", "label", "clean", "adversarial", "fooled_step")
_PREFIX = "attack."


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """One row a sample, in the split's order; a prediction is a class."""

    index: Tensor
    """(n,) int64, position in the split."""

    label: Tensor
    """(n,) int64, the true class."""

    clean: Tensor
    """(n,) int64, prediction for the clean image."""

    steps: tuple[int, ...]
    """The K numbers of PGD steps, ascending."""

    adversarial: Tensor
    """(n, K) int64, prediction under PGD of so many steps."""

    fooled_step: Tensor
    """(n,) int64, step at which it was first wrong, of the most steps, 0 the random start.

    -1 where it is right, or there are no steps.
    """

    attacks: Mapping[str, Tensor] = field(default_factory=dict)
    """(n,) int64 each: prediction under another attack, by its name."""

    def natural(self) -> Tensor:
        """(n,) bool: right on the clean image."""
        return self.clean == self.label

    def robust(self, attack: int | str) -> Tensor:
        """(n,) bool: right under PGD of so many steps, or under another attack by its name."""
        if isinstance(attack, str):
            return self.attacks[attack] == self.label
        return self.adversarial[:, self.steps.index(attack)] == self.label

    def by_class(self) -> dict[int, dict[str, float]]:
        """Accuracies of each class that occurs, by the names that tables use, and its `samples`."""
        named = {"natural": self.natural(), **{f"pgd{count}": self.robust(count) for count in self.steps}}
        named |= {name: self.robust(name) for name in self.attacks}
        result = {}
        for label in self.label.unique().tolist():
            own = self.label == label
            shares = {name: right[own].double().mean().item() for name, right in named.items()}
            result[label] = {"samples": int(own.sum()), **shares}
        return result

    def save(self, path: Path) -> None:
        """Write an npz of int64 arrays named as the fields, and `attack.NAME` for each other attack, in one step."""
        arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
        others = {_PREFIX + name: prediction.numpy() for name, prediction in self.attacks.items()}
        replace_npz(path, {"steps": np.array(self.steps, dtype=np.int64), **arrays, **others})

    @classmethod
    def load(cls, path: Path) -> "Verdicts":
        """Read what `save` wrote.

        Raises: UserError where it is no such file.
        """
        arrays = read_npz(path, ("steps", *_ARRAYS))
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(
            steps=tuple(tensors["steps"].tolist()),
            attacks={name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)},
            **{name: tensors[name] for name in _ARRAYS},
        )


def interval(right: int, samples: int) -> tuple[float, float]:
    """95% confidence interval of a share, fractions.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if samples == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, spread = right / samples, z * z / samples
    middle = (share + spread / 2) / (1 + spread)
    half = (share * (1 - share) * spread + spread * spread / 4) ** 0.5 / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def replace_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz so that a reader never finds half of one."""

    def write(part: Path) -> None:
        with open(part, "wb") as file:  # of another name than *.npz
            np.savez_compressed(file, **dict(arrays))

    replace(path, write)


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of an npz.

    names: those that must be there

    Raises: UserError where it is none, or lacks one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{path}: not a file of verdicts: {error}") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path}: not a file of verdicts: it lacks {', '.join(missing)}")
    return arrays
