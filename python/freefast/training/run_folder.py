"""The files of a training run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from freefast.atomic import replace, replace_text
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.evaluation import files

FILES = (
    "config.json", "metrics.jsonl", "checkpoint.pt", "best.pt", "model.safetensors", "best.safetensors", "results.json",
    "curves.png", "examples.png", "loss_surface.png", "note.txt", "report.html", *files.FILES,
)  # fmt: skip

_MAY_CHANGE = ("out", "device", "workers", "graph")
_BEFORE_TRAINING = {"config.json", "metrics.jsonl", "model.safetensors"}
_END = b"</html>\n"

State = Literal["new", "begun", "trained", "finished"]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; settings, states, weights and results are replaced in one step, never half written."""

    path: Path
    """The folder."""

    def create(self, config: TrainConfig, overwrite: bool) -> None:
        """Make the folder and write `config.json`.

        Raises: UserError where the folder holds a run and is not to be overwritten, or cannot be made.
        """
        if not overwrite:
            self.require_empty()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from error
        text = json.dumps(config.as_json(), indent=2) + "\n"
        replace_text(self.path / "config.json", text)
        (self.path / "metrics.jsonl").touch()

    def require_empty(self) -> None:
        """Raises: UserError where the folder holds files of a run, but for one that ended before its first epoch."""
        held = self._held()
        if held and not self._has_nothing_to_lose(held):
            raise UserError(f"{self.path} holds results: give --resume, --overwrite or another --out")

    def state(self, config: TrainConfig) -> State:
        """How far the run of these settings is; a finished one is evaluated and has all its files.

        Raises: UserError where the folder holds a run of others, or a broken one.
        """
        held = self._held()
        if "config.json" not in held or self._has_nothing_to_lose(held):
            return "new"
        self.require_settings(config)
        if not self.load_checkpoint(torch.device("cpu"))["ended"]:
            return "begun"
        page = self.path / "report.html"  # the last file that a run writes
        whole = {"results.json", page.name} <= held and page.read_bytes().endswith(_END)
        return "finished" if whole else "trained"

    def read_config(self) -> TrainConfig:
        """The run's settings, `out` being this folder.

        Raises: UserError where the folder holds no run.
        """
        path = self.path / "config.json"
        try:
            config = TrainConfig.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError:
            raise UserError(f"{self.path} holds no run: config.json is missing") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON: {error}") from None
        return dataclasses.replace(config, out=self.path)

    def require_settings(self, config: TrainConfig) -> None:
        """Raises: UserError where the folder's run is not of these settings, `_MAY_CHANGE` left out."""
        wanted, found = config.as_json(), self.read_config().as_json()
        for name in wanted:
            if name not in _MAY_CHANGE and wanted[name] != found[name]:
                raise UserError(
                    f"{self.path} holds a run with {name} {found[name]}, not {wanted[name]}: "
                    "give --overwrite or another --out"
                )

    def append_metrics(self, entry: dict[str, Any]) -> None:
        """Add one epoch's line to `metrics.jsonl`."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def read_metrics(self, count: int | None = None) -> list[dict[str, Any]]:
        """One entry an epoch in the order of training, the first so many or all.

        Raises: UserError naming the line that is not an epoch's.
        """
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[:count]
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8 text") from None
        return [_entry(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]

    def drop_metrics_after(self, count: int) -> None:
        """Forget the entries that the checkpoint does not know.

        Raises: UserError as `read_metrics`, or where entries are missing.
        """
        entries = self.read_metrics(count)
        if len(entries) != count:
            raise UserError(f"{self.path / 'metrics.jsonl'}: wanted {count} epochs, got {len(entries)}")
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        replace_text(self.path / "metrics.jsonl", text)

    def save_note(self, text: str) -> None:
        """Write `note.txt`, which stands on every page that is made of the run."""
        replace_text(self.path / "note.txt", text)

    def drop_results(self) -> None:
        """Forget the evaluation of weights that are trained on."""
        (self.path / "results.json").unlink(missing_ok=True)

    def save_checkpoint(self, content: dict[str, Any], name: str = "checkpoint.pt") -> None:
        """Write `checkpoint.pt`, or `best.pt`."""
        replace(self.path / name, lambda file: torch.save(content, file))

    def load_checkpoint(self, device: torch.device, name: str = "checkpoint.pt") -> dict[str, Any]:
        """Read `checkpoint.pt` or `best.pt`, its tensors on the device.

        Raises: UserError where it is missing or not a checkpoint.
        """
        path = self.path / name
        if not path.exists():
            raise UserError(f"{self.path} holds no {name} to continue from")
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # a broken pickle may raise anything
            raise UserError(f"{path}: not a checkpoint, or a damaged one") from error
        for key in ("epoch", "lines", "ended"):
            if not isinstance(content, dict) or not isinstance(content.get(key), int):
                raise UserError(f"{path}: not a checkpoint: it has no {key}")
        return content

    def save_weights(self, model: nn.Module, name: str = "model.safetensors") -> None:
        """Write `model.safetensors` or `best.safetensors`: weights and BatchNorm statistics, contiguous, on the CPU."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        content = save(tensors)  # save_file makes a file that only its owner may read
        replace(self.path / name, lambda file: file.write_bytes(content))

    def load_weights(self) -> dict[str, Tensor]:
        """Read `model.safetensors`.

        Raises: UserError where it is missing or broken.
        """
        path = self.path / "model.safetensors"
        if not path.exists():
            raise UserError(f"{self.path} holds no model.safetensors")
        return read_safetensors(path)

    def _held(self) -> set[str]:
        """Names of the files of a run that are there."""
        return {name for name in FILES if (self.path / name).exists()}

    def _has_nothing_to_lose(self, held: set[str]) -> bool:
        """Whether a run was ended here before its first checkpoint."""
        begun = "config.json" in held and held <= _BEFORE_TRAINING
        return begun and not ("metrics.jsonl" in held and (self.path / "metrics.jsonl").stat().st_size)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises: UserError where the file is broken."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not safetensors: {error}") from error


def _entry(line: str, place: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("seconds"), (int, float)):
        raise UserError(f"{place}: wanted an object with a number of seconds, got {line[:80]}")
    return entry
