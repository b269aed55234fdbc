"""The settings that training runs and comparisons share, checked before any work starts."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from freefast import models
from freefast.checks import apply_types
from freefast.data import DATASETS, DatasetName
from freefast.errors import UserError
from freefast.options import AUTO, AutoBool, AutoFloat, AutoInt, AutoPixels, AutoStr, Limit, OwnSize
from freefast.precision import PRECISIONS, Precision, PrecisionName
from freefast.training.schedules import SCHEDULES

Backend = Literal["auto", "reference", "native", "triton"]
GraphMode = Literal["auto", "on", "off"]
OnCollapse = Literal["continue", "stop", "rollback"]
SELECTIONS = ("best", "last", "report")
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every method of a comparison shares: data, model, threat, length, optimiser, evaluation.

    Raises: UserError where a setting is out of its range.
    """

    dataset: DatasetName = "digits"
    """scikit-learn's digits, CIFAR-10, a folder with train/ and test/ of class folders, or made-up images."""

    data_root: Path | None = None
    """Folder of imagefolder's or cifar10's files."""

    image_size: OwnSize = None
    """Side that imagefolder's images are resized to, pixels."""

    limit_train: Limit = None
    """Training samples to use."""

    limit_test: Limit = None
    """Test samples to use."""

    model: AutoStr = AUTO
    """preactresnet18, resnet50, resnet50_cifar, wideresnet or small_cnn (auto: small_cnn for digits and fake, else
    preactresnet18)."""

    width: AutoInt = AUTO
    """Channels of the first stage of preactresnet18 (auto: 64) and small_cnn (auto: 16), inside the blocks of the first
    stage of resnet50 and resnet50_cifar (auto: 64)."""

    depth: AutoInt = AUTO
    """Layers of wideresnet, 6 n + 4 (auto: 28)."""

    widen_factor: AutoInt = AUTO
    """Widening of wideresnet (auto: 10)."""

    epsilon: AutoPixels = AUTO
    """Radius of the l-inf ball, pixel units in [0, 1] (auto: 0.2 for digits, else 8/255)."""

    epochs: AutoInt = AUTO
    """Passes over the training data, free's with every replay in each (auto: 20 for digits and fake, else 45)."""

    batch_size: AutoInt = AUTO
    """Samples a batch (auto: 64 for digits and fake, else 128)."""

    schedule: Literal["cyclic", "multistep"] = "cyclic"
    """Learning rate by update: up from 0 to its peak and down to 0, or x0.1 at 1/2 and 3/4 of all."""

    peak: AutoFloat = AUTO
    """Where cyclic's peak lies, a fraction of all updates; 0 only falls (auto: 0.5)."""

    momentum: float = 0.9
    """Momentum of SGD."""

    weight_decay: float = 5e-4
    """L2 penalty of SGD."""

    label_smoothing: float = 0.0
    """Share of the target that all classes have in equal parts; of the loss that trains, not of an attack's own."""

    weight_average: float = 0.0
    """Decay of an exponential moving average of the weights, one step an update, which is evaluated and saved; 0 keeps
    none."""

    resize_from: OwnSize = None
    """Height that training images are shrunk to in the first epochs, pixels, their width in proportion."""

    resize_epochs: int = 0
    """Epochs on the shrunk images."""

    precision: Literal[PrecisionName, "report"] = "fp32"
    """fp32, cuDNN's convolutions in TF32 where torch.backends lets them, as by default; amp-...: autocast around fp32
    weights (O1); half-...: half-precision weights, BatchNorm in fp32 (O2); report: half-fp16 without master weights or
    loss scale, as the report ran it."""

    master_weights: AutoBool = AUTO
    """Of half-...: update fp32 copies of the weights, then round (auto: on, off for report)."""

    loss_scale: AutoStr = AUTO
    """none, dynamic or a number (auto: dynamic for fp16, none for the others and for report)."""

    evaluate_in: AutoStr = AUTO
    """How the model computes in evaluations, one of precision's names but report; the guard's are as in training (auto:
    as in training)."""

    augment: AutoBool = AUTO
    """Random crop with a padding of 4 pixels, and horizontal flip (auto: on for cifar10 and imagefolder)."""

    seed: int = 0
    """Of weights, order, augmentation and noise; the same seed gives the same bits on the same machine with
    as many threads."""

    device: Device = "auto"
    """Where to train; auto takes a GPU where there is one."""

    threads: AutoInt = AUTO
    """CPU threads (auto: 1 for digits and fake, whose batches are too small to share out, else torch's number)."""

    workers: int = 0
    """Processes that prepare batches; 0 prepares them on the device, if it has room for the images."""

    graph: GraphMode = "auto"
    """Whether a training step is one CUDA graph: on says so where it cannot be (auto: on for CUDA)."""

    compile: bool = False
    """Train with torch.compile's version of the model; other bits than without."""

    cudnn_search: bool = False
    """Let cuDNN try its algorithms and take the fastest in training: the same seed may give other bits."""

    backend: Backend = "auto"
    """Implementation of the fused operations; auto takes ADVKERNELS_BACKEND's, else the fastest for the device."""

    replays: AutoInt = AUTO
    """Updates that free makes on one batch, the report's m (auto: 8)."""

    delta_init: AutoStr = AUTO
    """Where fast's attack starts: zero, random, or previous, where the last batch's attack ended (auto: random, zero
    with grad_align and no noise_magnitude)."""

    noise_magnitude: AutoFloat = AUTO
    """Radius of fast's random start, in epsilons (auto: 1). N-FGSM is 2 with --clip off: it kept de Jorge et al. 2022
    from catastrophic overfitting at no cost."""

    clip: AutoBool = AUTO
    """Project fast's perturbation on the ball behind the step (auto: on)."""

    grad_align: AutoFloat = AUTO
    """Weight of GradAlign in fast's loss, 1 - cos of the gradients at an image and near it; a step takes several times
    as long (auto: 0; Andriushchenko and Flammarion 2020: 0.2 for CIFAR-10 at epsilon 8/255, by code that
    differentiates one of the two gradients)."""

    pgd_steps: AutoInt = AUTO
    """Steps of pgd's attack (auto: 7)."""

    guard_samples: AutoInt = AUTO
    """Training samples, the same share of each class, that are held out and attacked by PGD-10 after every epoch; 0:
    none. Not of standard, which has no robust accuracy to lose (auto: a tenth of all, at most 1000, none of fewer than
    500). An epoch's check is at most 11 gradients of each: of 1000 CIFAR-10 images, PreActResNet18 on an H100, an
    estimated 0.2 s in half-fp16 and 0.7 s in fp32, by the time of PGD-50."""

    on_collapse: OnCollapse = "continue"
    """Once the guard's accuracy has fallen by more than 20 points: train on, which loses no weights but time; end the
    run; or go back to the best epoch and on from there with half the alpha, three times at most (fast and pgd)."""

    select: AutoStr = AUTO
    """Weights that are evaluated and saved: best (of the guard), last, or report: best of the test set under PGD in the
    evaluations during training, as published figures may be chosen (auto: best with a guard, else last)."""

    eval_every: int = 0
    """Epochs from one evaluation during training to the next; 0 evaluates after training only."""

    curve_steps: tuple[int, ...] = (10,)
    """PGD steps of the evaluations during training."""

    eval_steps: tuple[int, ...] = (10, 20, 50)
    """PGD steps of the evaluation after training."""

    restarts: int = 1
    """Random starts of a PGD evaluation; a sample keeps the one with the largest loss."""

    def __post_init__(self) -> None:
        if isinstance(self.loss_scale, (int, float)):
            object.__setattr__(self, "loss_scale", str(self.loss_scale))
        apply_types(self)
        if self.data_root is not None:
            object.__setattr__(self, "data_root", self.data_root.resolve())
        small = self.dataset in ("digits", "fake")
        self._default("model", "small_cnn" if small else "preactresnet18")
        self._default("epsilon", 0.2 if self.dataset == "digits" else 8 / 255)
        self._default("epochs", 20 if small else 45)
        self._default("batch_size", 64 if small else 128)
        self._default("augment", not small)
        self._default("threads", 1 if small else None)
        self._check_precision()
        self._check_schedule()
        self._check_resizing()
        self._one_of("model", models.MODELS)
        self._one_of("dataset", DATASETS)
        for name, form in (("backend", Backend), ("graph", GraphMode)):
            self._one_of(name, get_args(form))
        for name in ("limit_train", "limit_test", "image_size", "width", "depth", "widen_factor", "threads"):
            self._at_least(name, 1)
        for name in ("epochs", "batch_size", "restarts"):
            self._at_least(name, 1)
        for name in ("epsilon", "momentum", "weight_decay", "seed", "workers", "eval_every"):
            self._at_least(name, 0)
        self._check_guard()
        for name in ("label_smoothing", "weight_average"):
            self._fraction(name)
        if self.epsilon > 1:
            raise UserError(
                f"epsilon: wanted at most 1, in pixel units, got {self.epsilon:g}: is {self.epsilon:g}/255 meant?"
            )
        if self.seed >= 2**63:
            raise UserError(f"seed: wanted less than 2**63, got {self.seed}")
        for name in ("curve_steps", "eval_steps"):
            if min(getattr(self, name), default=1) < 1:
                raise UserError(f"{name}: wanted numbers of at least 1, got {list(getattr(self, name))}")

    @property
    def model_options(self) -> dict[str, int]:
        """The model's own settings, those that were given."""
        options = {"width": self.width, "depth": self.depth, "widen_factor": self.widen_factor}
        return {name: value for name, value in options.items() if value is not None}

    def _check_precision(self) -> None:
        self._one_of("precision", (*PRECISIONS, "report"))
        as_reported = self.precision == "report"
        if as_reported:
            object.__setattr__(self, "precision", "half-fp16")
        if self.precision.startswith("half"):
            self._default("master_weights", not as_reported)
        elif self.master_weights is not None:
            raise UserError(f"master_weights: is of half-bf16 and half-fp16, got it for {self.precision}")
        self._default("loss_scale", "dynamic" if self.precision.endswith("fp16") and not as_reported else "none")
        object.__setattr__(self, "loss_scale", Precision(loss_scale=self.loss_scale).loss_scale)
        self._default("evaluate_in", self.precision)
        self._one_of("evaluate_in", PRECISIONS)

    def _check_schedule(self) -> None:
        self._one_of("schedule", SCHEDULES)
        if self.schedule == "cyclic":
            self._default("peak", 0.5)
            self._fraction("peak")
        elif self.peak is not None:
            raise UserError(f"peak: is of cyclic, got it for {self.schedule}")

    def _check_guard(self) -> None:
        self._at_least("guard_samples", 0)
        self._one_of("on_collapse", get_args(OnCollapse))
        if self.select is not None:
            self._one_of("select", SELECTIONS)
        if self.select == "report" and not (self.eval_every and self.curve_steps):
            raise UserError("select: report is by evaluations during training: give eval_every and curve_steps")

    def _check_resizing(self) -> None:
        self._at_least("resize_from", 1)
        self._at_least("resize_epochs", 0)
        if (self.resize_from is None) != (self.resize_epochs == 0):
            raise UserError("resize_from and resize_epochs: wanted both or none of them")
        if self.resize_epochs > self.epochs:
            raise UserError(f"resize_epochs: wanted at most {self.epochs}, the epochs, got {self.resize_epochs}")

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _at_least(self, name: str, least: float) -> None:
        value = getattr(self, name)
        if value is not None and not least <= value < math.inf:
            raise UserError(f"{name}: wanted a finite number of at least {least}, got {value}")

    def _fraction(self, name: str) -> None:
        if not 0 <= getattr(self, name) < 1:
            raise UserError(f"{name}: wanted a number in [0, 1), got {getattr(self, name)}")

    def _one_of(self, name: str, known: Any) -> None:
        if getattr(self, name) not in known:
            raise UserError(f"{name}: wanted one of {', '.join(known)}, got {getattr(self, name)!r}")
