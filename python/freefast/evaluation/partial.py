"""The unfinished work of an evaluation, kept in a file so that it can go on."""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from freefast.data import Split
from freefast.evaluation.engine import Outcome, Plan
from freefast.evaluation.verdicts import read_npz, replace_npz
from freefast.precision import Precision

_SAVE_EVERY = 30.0  # seconds
_ARRAYS = ("done", "prediction", "fooled_step")


class Partial:
    """What is known of every sample so far.

    path: the file, or None to keep nothing
    """

    def __init__(self, path: Path | None, plan: Plan, split: Split, model: nn.Module, precision: Precision) -> None:
        self.done = torch.zeros(len(split), dtype=torch.bool)
        """(N,) bool: samples with a verdict."""
        self.prediction = torch.full((len(split), len(plan.steps)), -1)
        """(N, K) int64, as of `Outcome`."""
        self.fooled_step = torch.full((len(split),), -1)
        """(N,) int64, as of `Outcome`."""
        self._path = path
        self._saved = time.monotonic()
        if path is not None:
            self._key = _key(plan, split, model, precision)
            self._load(path)

    def left(self) -> Tensor:
        """(n,) int64: rows without a verdict."""
        return (~self.done).nonzero().squeeze(1)

    def take(self, rows: Tensor, outcome: Outcome) -> None:
        """Take over the verdicts that are there; saves now and then."""
        done = outcome.done[:-1].cpu()
        known = rows[done]
        self.done[known] = True
        self.prediction[known] = outcome.prediction[:-1].cpu()[done]
        self.fooled_step[known] = outcome.fooled_step[:-1].cpu()[done]
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Save where what is inside is interrupted or fails."""
        try:
            yield
        except BaseException:
            self._save()
            raise

    def remove(self) -> None:
        """Nothing is left to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._path is not None and self.done.any():
            arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
            replace_npz(self._path, {"key": np.array(self._key), **arrays})

    def _load(self, path: Path) -> None:
        """Go on from the file, where it is there and of the same evaluation."""
        if not path.exists():
            return
        arrays = read_npz(path, ("key", *_ARRAYS))
        if str(arrays["key"]) == self._key:
            for name in _ARRAYS:
                getattr(self, name).copy_(torch.from_numpy(arrays[name]))


def _key(plan: Plan, split: Split, model: nn.Module, precision: Precision) -> str:
    """A digest of all that the verdicts depend on."""
    digest = hashlib.sha256(repr((dataclasses.astuple(plan), precision, type(model))).encode())
    state = model.state_dict()
    for tensor in (split.images, split.labels, *(state[name] for name in sorted(state))):
        if isinstance(tensor, Tensor):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
