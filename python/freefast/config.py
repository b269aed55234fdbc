"""The settings of a training run, checked before any work starts."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from freefast.errors import UserError
from freefast.options import AUTO, AutoFloat, AutoPath, AutoPixels, show_pixels
from freefast.settings import Settings

Method = Literal["standard", "free", "fast", "pgd"]
METHODS: tuple[Method, ...] = get_args(Method)
DELTA_INITS = ("zero", "random", "previous")
OWNERS = {
    "alpha": ("fast", "pgd"), "delta_init": ("fast",), "pgd_steps": ("pgd",), "replays": ("free",),
    "guard_samples": ("free", "fast", "pgd"),
    "noise_magnitude": ("fast",), "clip": ("fast",), "grad_align": ("fast",),
}  # fmt: skip
"""The settings that only some methods have."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Train one classifier and write a run folder.

    Raises: UserError where a setting is out of its range, or is not of the method.
    """

    method: Annotated[Method, tyro.conf.Positional]
    """standard (no attack), free, fast (FGSM from a random start) or pgd."""

    lr_max: AutoFloat = AUTO
    """Largest learning rate (auto: 0.04 for free, else 0.2)."""

    alpha: AutoPixels = AUTO
    """Step size of the attack of fast and pgd, pixel units (auto: 1.25 epsilon for fast, epsilon without clip,
    epsilon / 4 for pgd)."""

    out: AutoPath = AUTO
    """Run folder (auto: runs/DATASET-MODEL-METHOD-SEED)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("method", METHODS)
        for name, methods in OWNERS.items():
            if self.method not in methods and getattr(self, name) is not None:
                raise UserError(f"{name}: is of {' and '.join(methods)}, got it for {self.method}")
        for name, value in self._natural().items():
            self._default(name, value)
        if self.select == "best" and (self.method == "standard" or self.guard_samples == 0):
            raise UserError("select: best is by the guard, which standard and guard_samples 0 have none of")
        if self.on_collapse != "continue" and self.guard_samples == 0:
            raise UserError(f"on_collapse: {self.on_collapse} is by the guard, which guard_samples 0 turns off")
        if self.on_collapse == "rollback" and self.method == "free":
            raise UserError("on_collapse: rollback shrinks alpha, which is of fast and pgd, got it for free")
        for name in ("lr_max", "alpha"):
            self._at_least(name, 0)
        for name in ("replays", "pgd_steps"):
            self._at_least(name, 1)
        if self.method == "fast":
            self._check_fast()

    @property
    def updates_per_batch(self) -> int:
        """Optimiser steps on every batch."""
        return self.replays if self.method == "free" else 1

    @property
    def setting(self) -> str:
        """What a table says of the method: "m=8", "alpha=10/255"."""
        match self.method:
            case "free":
                return f"m={self.replays}"
            case "fast":
                start = "" if self.delta_init == "random" else f", {self.delta_init} start"
                noise = "" if self.noise_magnitude == 1 else f", noise {self.noise_magnitude:g} epsilon"
                clip = "" if self.clip else ", no clip"
                align = f", GradAlign {self.grad_align:g}" if self.grad_align else ""
                return f"alpha={show_pixels(self.alpha)}{start}{noise}{clip}{align}"
            case "pgd":
                return f"{self.pgd_steps} steps, alpha={show_pixels(self.alpha)}"
        return ""

    def as_json(self) -> dict[str, Any]:
        """The settings in JSON's types."""
        values = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Any) -> "TrainConfig":
        """The settings that `as_json` gave.

        Raises: UserError where one is unknown or wrong.
        """
        if not isinstance(values, dict):
            raise UserError(f"config: wanted an object, got {type(values).__name__}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"config: {error}") from error

    def _check_fast(self) -> None:
        self._one_of("delta_init", DELTA_INITS)
        for name in ("noise_magnitude", "grad_align"):
            self._at_least(name, 0)
        if self.noise_magnitude > 100:
            raise UserError(f"noise_magnitude: wanted at most 100, in epsilons, got {self.noise_magnitude:g}")
        if self.noise_magnitude != 1 and self.delta_init != "random":
            raise UserError(f"noise_magnitude: is of a random start, got it for delta_init {self.delta_init}")
        if not self.clip and self.delta_init == "previous":
            raise UserError("clip: off lets the perturbation grow from batch to batch with delta_init previous")
        if self.grad_align and self.compile:
            raise UserError("grad_align: torch.compile does not differentiate twice: leave compile off")

    def _natural(self) -> dict[str, Any]:
        out = Path("runs") / f"{self.dataset}-{self.model}-{self.method}-{self.seed}"
        shared: dict[str, Any] = {"lr_max": 0.04 if self.method == "free" else 0.2, "out": out}
        own: dict[str, dict[str, Any]] = {
            "standard": {},
            "free": {"replays": 8},
            "fast": {
                "alpha": (1.25 if self.clip in (None, True) else 1) * self.epsilon,
                "delta_init": "zero" if self.grad_align and self.noise_magnitude is None else "random",
                "noise_magnitude": 1.0,
                "clip": True,
                "grad_align": 0.0,
            },
            "pgd": {"alpha": self.epsilon / 4, "pgd_steps": 7},
        }
        return {**shared, **own[self.method]}
