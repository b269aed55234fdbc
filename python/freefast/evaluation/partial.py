"""The unfinished work of an evaluation, kept in a file so that it can go on."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from freefast.data import Split
from freefast.errors import UserError
from freefast.evaluation.verdicts import read_npz, replace_npz
from freefast.evaluation.warning import warn

_SAVE_EVERY = 30.0  # seconds
_ARRAYS = ("done", "prediction", "fooled_step")


class Partial:
    """What an attack is known to do to every sample so far.

    path: the file, or None to keep nothing
    key: says what the verdicts depend on; a file of another key is not taken
    samples: N
    columns: K, predictions a sample
    """

    def __init__(self, path: Path | None, key: str, samples: int, columns: int) -> None:
        self.done = torch.zeros(samples, dtype=torch.bool)
        """(N,) bool: samples with a verdict."""
        self.prediction = torch.full((samples, columns), -1)
        """(N, K) int64, as of `Outcome`."""
        self.fooled_step = torch.full((samples,), -1)
        """(N,) int64, as of `Outcome`."""
        self._path, self._key = path, key
        self._saved = time.monotonic()
        if path is not None and path.exists():
            self._load(path)

    def left(self) -> Tensor:
        """(n,) int64: rows without a verdict."""
        return (~self.done).nonzero().squeeze(1)

    def take(self, rows: Tensor, prediction: Tensor, fooled_step: Tensor | None = None) -> None:
        """Take over the verdicts of some rows; saves now and then.

        prediction: (n, K) int64
        fooled_step: (n,) int64; None where the attack does not say
        """
        self.done[rows] = True
        self.prediction[rows] = prediction.cpu()
        if fooled_step is not None:
            self.fooled_step[rows] = fooled_step.cpu()
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Save at the end of what is inside, and where it is interrupted or fails."""
        try:
            yield
        finally:
            self._save()

    def remove(self) -> None:
        """Nothing is left to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._path is not None and self.done.any():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
            replace_npz(self._path, {"key": np.array(self._key), **arrays})

    def _load(self, path: Path) -> None:
        try:
            arrays = read_npz(path, ("key", *_ARRAYS))
        except UserError as error:
            warn(f"{error}; the evaluation begins anew")
            return
        if str(arrays["key"]) == self._key:
            for name in _ARRAYS:
                getattr(self, name).copy_(torch.from_numpy(arrays[name]))


def digest(settings: str, split: Split, model: nn.Module, clean: Tensor) -> str:
    """A key of settings, images, labels, weights, statistics and predictions without an attack."""
    return _digest(f"{settings} {weights_digest(model)}", [split.images, split.labels, clean])


def weights_digest(model: nn.Module) -> str:
    """A key of a model's structure, weights and statistics."""
    state = model.state_dict()
    return _digest(repr(model), [state[name] for name in sorted(state)])


def _digest(text: str, tensors: Iterable[object]) -> str:
    result = hashlib.sha256(text.encode())
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            result.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            result.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
