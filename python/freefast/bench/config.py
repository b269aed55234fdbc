"""What a benchmark of training steps measures, checked before any work starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from freefast.bench.variants import Variant
from freefast.config import METHODS, Method, TrainConfig
from freefast.data import DatasetName
from freefast.errors import UserError
from freefast.options import AUTO, AutoFloat, AutoInt, AutoStr
from freefast.precision import PRECISIONS, PrecisionName
from freefast.settings import Device
from freefast.training import setup

EPOCH = 50_000
"""Made-up images stand for so many, the training images of CIFAR-10."""

_ON_CPU: dict[str, Any] = {"batch_size": 32, "samples": 512, "steps": 4, "budget": 90.0}
_ON_CUDA: dict[str, Any] = {"batch_size": 128, "samples": EPOCH, "steps": 60, "budget": 600.0}
_NARROW = 16
"""Width of preactresnet18 on the CPU."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Time training steps in one process: ours and the plain loop in PyTorch, without and with torch.compile.

    Raises: UserError where a setting is out of its range or the device is not there.
    """

    methods: tuple[Method, ...] = METHODS
    """Methods to time."""

    precisions: tuple[PrecisionName, ...] | None = None
    """Of our steps (default: half-bf16 half-fp16 amp-bf16 fp32 on CUDA; fp32 on the CPU, and amp-bf16 where it
    multiplies bfloat16 numbers)."""

    only: tuple[str, ...] = ()
    """Time only variants whose names have all of these words."""

    skip: tuple[str, ...] = ()
    """Leave out variants whose names have one of these words: compile, search, eager, free, ..."""

    dataset: DatasetName | None = None
    """Data set to train on (default: made-up images of CIFAR-10's size)."""

    data_root: Path | None = None
    """Folder of imagefolder's or cifar10's files."""

    model: AutoStr = AUTO
    """Model (auto: small_cnn for digits and fake, else preactresnet18)."""

    width: AutoInt = AUTO
    """Channels of its first stage (auto: preactresnet18's 64, on the CPU 16)."""

    batch_size: AutoInt = AUTO
    """Samples a batch (auto: 128, on the CPU 32)."""

    samples: AutoInt = AUTO
    """Images to make up, or at most so many of the data set's (auto: 50000, on the CPU 512)."""

    steps: AutoInt = AUTO
    """Timed steps of standard and fast; of free and pgd a sixth of them (auto: 60, on the CPU 4)."""

    budget: AutoFloat = AUTO
    """Seconds; a variant that would not end in them times fewer steps or is left out (auto: 600, on the CPU 90)."""

    device: Device = "auto"
    """Where to train; auto takes a GPU where there is one."""

    out: Path = Path("runs/bench")
    """Folder for results.json, roofline.png and roofline.svg."""

    def __post_init__(self) -> None:
        device = setup.pick_device(self.device)
        object.__setattr__(self, "device", str(device))
        for name, value in (_ON_CUDA if device.type == "cuda" else _ON_CPU).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.precisions is None:
            object.__setattr__(self, "precisions", _precisions(device))
        if self.width is None and device.type == "cpu" and self._is_preactresnet18:
            object.__setattr__(self, "width", _NARROW)
        self._check()

    @property
    def _is_preactresnet18(self) -> bool:
        return self.model == "preactresnet18" or (self.model is None and self.dataset not in ("digits", "fake"))

    def _check(self) -> None:
        for name, known in (("methods", METHODS), ("precisions", PRECISIONS)):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
                raise UserError(f"{name}: wanted some of {', '.join(known)}, each once, got {', '.join(chosen)}")
        for name in ("batch_size", "samples", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if not self.budget > 0:
            raise UserError(f"budget: wanted seconds above 0, got {self.budget}")
        self.train_config(Variant(method=self.methods[0], who="ours"), epochs=1)

    def train_config(self, variant: Variant, epochs: int) -> TrainConfig:
        """The run that a variant's steps are of."""
        return TrainConfig(
            method=variant.method, dataset=self.dataset or "cifar10", data_root=self.data_root, model=self.model,
            width=self.width, precision=variant.precision, graph=variant.graph, device=self.device,
            batch_size=self.batch_size, epochs=epochs, compile=variant.compile and variant.who == "ours",
        )  # fmt: skip


def _precisions(device: torch.device) -> tuple[PrecisionName, ...]:
    if device.type == "cuda":
        return ("half-bf16", "half-fp16", "amp-bf16", "fp32")
    return ("amp-bf16", "fp32") if multiplies_bfloat16() else ("fp32",)


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it; without, oneDNN emulates them, many times slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
