"""The files of a training run."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from freefast.config import TrainConfig
from freefast.errors import UserError

FILES = (
    "config.json", "metrics.jsonl", "checkpoint.pt", "model.safetensors", "results.json", "curves.png", "report.html",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; every file is replaced in one step, so that a reader never finds half of one."""

    path: Path
    """The folder."""

    def create(self, config: TrainConfig, overwrite: bool) -> None:
        """Make the folder and write `config.json`.

        Raises: UserError where the folder holds a run and is not to be overwritten, or cannot be made.
        """
        if not overwrite and any((self.path / name).exists() for name in FILES):
            raise UserError(f"{self.path} holds results: give --resume, --overwrite or another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from error
        (self.path / "metrics.jsonl").touch()
        text = json.dumps(config.as_json(), indent=2) + "\n"
        self._replace("config.json", lambda file: file.write_text(text, encoding="utf-8"))

    def read_config(self) -> TrainConfig:
        """The run's settings, `out` being this folder.

        Raises: UserError where the folder holds no run.
        """
        try:
            values = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{self.path} holds no run: config.json is missing") from None
        except ValueError as error:
            raise UserError(f"{self.path / 'config.json'}: not JSON: {error}") from None
        return TrainConfig.from_json({**values, "out": str(self.path)})

    def append_metrics(self, entry: dict[str, Any]) -> None:
        """Add one epoch's line to `metrics.jsonl`."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """One entry an epoch."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def drop_metrics_after(self, epoch: int) -> None:
        """Forget the epochs that the checkpoint does not know."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        self._replace("metrics.jsonl", lambda file: file.write_text("".join(lines[:epoch]), encoding="utf-8"))

    def save_checkpoint(self, content: dict[str, Any]) -> None:
        """Write `checkpoint.pt`."""
        self._replace("checkpoint.pt", lambda file: torch.save(content, file))

    def load_checkpoint(self, device: torch.device) -> dict[str, Any]:
        """Read `checkpoint.pt`, its tensors on the device.

        Raises: UserError where it is missing.
        """
        path = self.path / "checkpoint.pt"
        if not path.exists():
            raise UserError(f"{self.path} holds no checkpoint.pt to continue from")
        return torch.load(path, map_location=device, weights_only=True)

    def save_weights(self, model: nn.Module) -> None:
        """Write `model.safetensors`: weights and BatchNorm statistics, contiguous, on the CPU."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        self._replace("model.safetensors", lambda file: save_file(tensors, file))

    def load_weights(self) -> dict[str, Tensor]:
        """Read `model.safetensors`.

        Raises: UserError where it is missing.
        """
        path = self.path / "model.safetensors"
        if not path.exists():
            raise UserError(f"{self.path} holds no model.safetensors")
        return load_file(path)

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        unfinished = self.path / f".{name}.part"
        write(unfinished)
        os.replace(unfinished, self.path / name)
