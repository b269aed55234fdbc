"""`freefast evaluate`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from freefast import reporting
from freefast.attacks import NAMED, Attack, AttackName
from freefast.commands.shared import hint, show
from freefast.commands.subject import Subject, load_images, of_file, of_function, of_run
from freefast.config import TrainConfig
from freefast.errors import UserError
from freefast.evaluation import Evaluation, evaluate, files
from freefast.options import AUTO, AutoBool, AutoInt, AutoPixels, AutoStr, Limit, OwnSize
from freefast.precision import Precision, PrecisionName
from freefast.progress import bars
from freefast.settings import Device
from freefast.summary import write_report
from freefast.threat import Norm, ThreatModel
from freefast.training import results, setup
from freefast.training.run_folder import RunFolder

_OF_A_RUN = ("target", "out", "steps", "restarts", "batch_size", "device", "precision")
"""The settings that leave an evaluation of a run its own."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a run, the weights in a file, or any model that maps images to logits.

    A run's row in its results.json, its curves and its report are refreshed, unless --out names another folder.
    Interrupted, the same command goes on where it was.
    """

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT|MODULE:FUNCTION")]
    """Run folder; file of weights (safetensors, or a state dict that torch.save wrote), of a run or with --model;
    function without arguments that returns a model, or a model itself."""

    out: Path | None = None
    """Folder for results.json, table.md, classes.csv and verdicts.npz (default: the run's own, else
    runs/evaluate-TARGET)."""

    steps: tuple[int, ...] | None = None
    """PGD steps (default: the run's own, else 10 20 50); accuracies of others stay in a run's row if all other settings
    are the same."""

    restarts: AutoInt = AUTO
    """Random starts of PGD (auto: the run's own, else 1)."""

    worst_case: bool = False
    """Fooled by any restart is fooled; else a sample keeps the restart with the largest loss, as in the report."""

    full: bool = False
    """Make every step; else a sample stops moving once it is fooled, as in the report."""

    norm: Norm = "linf"
    """Which length epsilon bounds."""

    epsilon: AutoPixels = AUTO
    """Radius of the ball, pixel units (auto: the run's own, else 0.2 for digits and 8/255; 0.5 in l2)."""

    alpha: AutoPixels = AUTO
    """Step size of PGD, pixel units (auto: epsilon / 4)."""

    attacks: tuple[AttackName, ...] = ()
    """Other attacks to run beside PGD, on the samples that are right without one."""

    batch_size: AutoInt = AUTO
    """Samples at a time (auto: 128, on a CUDA device 512)."""

    seed: AutoInt = AUTO
    """Of the random starts (auto: the run's own, else 0)."""

    dataset: AutoStr = AUTO
    """digits, cifar10, imagefolder or fake, whose test images are used (auto: the run's own, else digits)."""

    data_root: Path | None = None
    """Folder of imagefolder's or cifar10's files."""

    image_size: OwnSize = None
    """Side that imagefolder's images are resized to, pixels."""

    limit_test: Limit = None
    """Test samples to use."""

    model: AutoStr = AUTO
    """What a file's weights are of (auto: the model of the run that the file is in)."""

    width: AutoInt = AUTO
    """Channels of its first stage."""

    depth: AutoInt = AUTO
    """Its layers."""

    widen_factor: AutoInt = AUTO
    """Its widening."""

    normalize: AutoBool = AUTO
    """Give the model (pixels - mean) / std of the data set, else pixels in [0, 1] (auto: off for MODULE:FUNCTION)."""

    device: Device = "auto"
    """Where to evaluate; auto takes a GPU where there is one."""

    precision: PrecisionName | None = None
    """How the model computes (default: as in the evaluation of its run, else as its weights are)."""

    def run(self) -> None:
        """Evaluate and print the table."""
        path = Path(self.target)
        folder = RunFolder(path if path.is_dir() else path.parent)
        config = folder.read_config() if path.is_dir() or self._is_of_a_run(path) else None
        own = config if path.is_dir() and self.out is None else None
        self._check_out()
        if own is not None:
            self._require_own()
            folder.read_metrics()  # what cannot be read is refused before the work
        device = setup.pick_device(self.device)
        subject = self._subject(path, folder, config)
        if own is not None:
            self._refresh(folder, own, subject, device)
        else:
            self._evaluate_into(self.out or Path("runs") / f"evaluate-{_file_name(self.target)}", subject, device)

    def _refresh(self, folder: RunFolder, config: TrainConfig, subject: Subject, device: torch.device) -> None:
        """Evaluate a run by its own settings, and write its row, curves and report again."""
        path = folder.path
        before = reporting.results.read(path) if (path / "results.json").exists() else None
        scores, _, precision = self._evaluate(path, subject, device)
        config = dataclasses.replace(config, eval_steps=subject.steps, restarts=subject.restarts)
        row_before = before.rows[-1] if before and before.rows else None
        environment = _environment(before, device)
        row = results.finish(config, folder, scores, subject.data.classes, environment, precision, row_before)
        write_report([path], path, device=self.device)
        show([row], path)

    def _evaluate_into(self, out: Path, subject: Subject, device: torch.device) -> None:
        """Evaluate by any settings, and write a folder of its own."""
        scores, threat, precision = self._evaluate(out, subject, device)
        row = self._row(subject, scores, threat, precision)
        out.mkdir(parents=True, exist_ok=True)
        reporting.results.write(out, [row], reporting.environment.describe(device))
        reporting.table.write([row], out)
        files.write(out, scores, subject.data.classes)
        show([row], out, "results.json, table.md, table.csv, classes.csv, verdicts.npz")

    def _evaluate(self, out: Path, subject: Subject, device: torch.device) -> tuple[Evaluation, ThreatModel, Precision]:
        """The scores, the ball and how the model computed; out: folder of what is kept when interrupted."""
        partial = out / ".evaluation"
        with setup.runtime(subject.backend, subject.threads, subject.seed, device), bars() as progress:
            model, precision = self._prepared(subject, device)
            threat = self._threat(subject)
            others: dict[str, Attack] = {name: self._attack(name, model, threat, precision) for name in self.attacks}
            with hint("the same command", out, f"{partial.name}.*.npz"):
                scores = evaluate(
                    model, subject.data, threat, steps=subject.steps, restarts=subject.restarts, alpha=self.alpha,
                    worst_case=self.worst_case, full=self.full, attacks=others, batch_size=self.batch_size,
                    seed=subject.seed, device=device, precision=precision, partial=partial, progress=progress,
                )  # fmt: skip
        return scores, threat, precision

    def _check_out(self) -> None:
        if self.out is not None and (self.out / "config.json").exists():
            raise UserError(f"--out: {self.out} holds a run, wanted another folder")
        if self.out is not None and (self.out / "report.html").exists():
            raise UserError(f"--out: {self.out} holds a report, wanted another folder")
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out: {self.out} is a file, wanted a folder")

    def _is_of_a_run(self, path: Path) -> bool:
        return path.is_file() and self.model is None and (path.parent / "config.json").exists()

    def _require_own(self) -> None:
        for field in dataclasses.fields(self):
            if field.name not in _OF_A_RUN and getattr(self, field.name) != field.default:
                option = field.name.replace("_", "-")
                raise UserError(f"--{option}: makes it another evaluation than the run's own: give it an --out")

    def _subject(self, path: Path, folder: RunFolder, config: TrainConfig | None) -> Subject:
        """The target, with the settings that were given in the place of its natural ones."""
        names = ("dataset", "data_root", "image_size", "limit_test")
        data_changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        options = {name: getattr(self, name) for name in ("width", "depth", "widen_factor")}
        options = {name: value for name, value in options.items() if value is not None}
        if (options or self.model) and not (path.is_file() and config is None):
            raise UserError(f"--{next(iter(options), 'model')}: is of a file of weights that is in no run's folder")
        if config is not None:
            subject = of_run(folder if path.is_dir() else path, config, data_changes)
        elif path.is_file():
            if self.model is None:
                raise UserError(f"{path} is in no run's folder: give its --model")
            subject = of_file(path, self.model, options, load_images(data_changes))
        elif ":" in self.target:
            subject = of_function(self.target, load_images(data_changes))
        else:
            raise UserError(f"{self.target} holds no run, is no file of weights and no MODULE:FUNCTION")
        names = ("steps", "restarts", "seed", "epsilon")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.norm == "l2":
            given.setdefault("epsilon", 0.5)
        if self.normalize is not None:
            given["normalized"] = self.normalize
        return dataclasses.replace(subject, **given)

    def _prepared(self, subject: Subject, device: torch.device) -> tuple[torch.nn.Module, Precision]:
        precision = subject.precision
        if self.precision is not None:
            precision = dataclasses.replace(precision, name=self.precision)
        data = subject.data
        precision.require(subject.model, device, torch.zeros(2, data.channels, *data.image_size, device=device))
        return precision.prepare(subject.model).to(device).to(memory_format=torch.channels_last).eval(), precision

    def _threat(self, subject: Subject) -> ThreatModel:
        data = subject.data
        units = {"mean": data.mean, "std": data.std} if subject.normalized else {}
        try:
            return ThreatModel(epsilon=subject.epsilon, norm=self.norm, **units)
        except ValueError as error:
            raise UserError(str(error).removeprefix("ThreatModel: ")) from error

    def _attack(self, name: AttackName, model: torch.nn.Module, threat: ThreatModel, precision: Precision) -> Attack:
        return NAMED[name](
            model, eps=threat.epsilon, norm=threat.norm, mean=threat.mean, std=threat.std, precision=precision
        )

    def _row(self, subject: Subject, scores: Evaluation, threat: ThreatModel, precision: Precision) -> dict[str, Any]:
        return {
            **subject.row, "epsilon": threat.epsilon, "norm": threat.norm, **scores.as_row(),
            "alpha": threat.epsilon / 4 if self.alpha is None else self.alpha, "worst_case": self.worst_case,
            "full": self.full, "samples": scores.samples, "restarts": subject.restarts, "seed": subject.seed,
            "evaluated_in": precision.name, "evaluation_seconds": scores.seconds,
        }  # fmt: skip


def _environment(before: reporting.results.Results | None, device: torch.device) -> dict[str, Any]:
    """Where the run was trained, as far as its results know, and what evaluates it now."""
    now = reporting.environment.describe(device)
    if before is None:
        return now
    evaluated = f"{now['command']} on {now['device']}, {now['date']}"
    return {**before.environment, "evaluated": evaluated}


def _file_name(target: str) -> str:
    """The target in letters that any file system takes."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in target).strip("-.")
