"""The numbers that a model computes with: apex's O0, O1 and O2 on PyTorch's own parts."""

import copy
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import advkernels as ak
from freefast.errors import UserError

PrecisionName = Literal["fp32", "amp-bf16", "amp-fp16", "half-bf16", "half-fp16"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FLOAT32 = torch.finfo(torch.float32)
_HEADROOM = 8
"""The largest gradient at a sample's logits is 2 ** _HEADROOM in a float16 attack: as far from 65504 as from 1."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How a model computes.

    name: fp32 throughout (apex's O0); amp: PyTorch's autocast to bf16 or fp16 around fp32 weights (O1); half: weights
        and activations in bf16 or fp16, BatchNorm in fp32, inputs cast once (O2)
    master_weights: of half: updates go into fp32 copies of the weights, else straight into the half weights
    loss_scale: "none", "dynamic" (torch.amp.GradScaler: updates with overflowing gradients are left out and the scale
        is halved) or a number (they are left out, the scale stays)

    Source: Micikevicius et al. 2018, "Mixed precision training".
    """

    name: PrecisionName = "fp32"
    master_weights: bool = True
    loss_scale: str = "none"

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise UserError(f"precision: wanted one of {', '.join(PRECISIONS)}, got {self.name!r}")
        if self.loss_scale not in ("none", "dynamic"):
            object.__setattr__(self, "loss_scale", _number(self.loss_scale))

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products and convolutions."""
        return _DTYPES[self.name.rpartition("-")[2]]

    @property
    def is_half(self) -> bool:
        """Whether the weights themselves are in half precision."""
        return self.name.startswith("half")

    @classmethod
    def of(cls, model: nn.Module) -> "Precision":
        """What a model's weights ask for: half where some are in half precision, else fp32."""
        dtypes = {parameter.dtype for parameter in model.parameters()}
        if torch.float64 in dtypes:
            raise UserError(
                "precision: wanted weights in float32, bfloat16 or float16, got float64: call model.float()"
            )
        if torch.bfloat16 in dtypes:
            return cls(name="half-bf16")
        return cls(name="half-fp16") if torch.float16 in dtypes else FP32

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with its weights in the policy's dtype, in place, and no gradients; BatchNorm stays in float32."""
        model.zero_grad()
        for module in model.modules():
            dtype = torch.float32 if not self.is_half or isinstance(module, _BatchNorm) else self.dtype
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
        return model

    def copy_of(self, model: nn.Module) -> nn.Module:
        """A copy of the model, prepared."""
        return self.prepare(copy.deepcopy(model))

    def logits(self, model: nn.Module, x: Tensor) -> Tensor:
        """The model's answer.

        x: (N, C, H, W) float32
        Returns: logits (N, classes) float32
        """
        if self.is_half:
            return model(x.to(self.dtype)).float()
        if self.name == "fp32":
            return model(x).float()
        with torch.autocast(x.device.type, self.dtype):
            logits = model(x)
        return logits.float()

    def attack_scale(self, samples: int, headroom: int = _HEADROOM) -> float:
        """What an attack multiplies the mean loss of so many samples with: a power of two, 1 but for float16.

        In float16 gradients below 3e-8 are 0, and their sign is lost. An attack takes no more than the sign, so that
        nothing is divided by the scale again.

        headroom: the largest gradient at a sample's logits is 2 ** headroom or a little more
        """
        if self.dtype != torch.float16:
            return 1.0
        return 2.0 ** (headroom + math.ceil(math.log2(max(samples, 1))))

    def make_scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The loss scale's keeper, which does nothing for "none"."""
        if self.loss_scale in ("none", "dynamic"):
            return torch.amp.GradScaler(device.type, enabled=self.loss_scale == "dynamic")
        return torch.amp.GradScaler(device.type, init_scale=float(self.loss_scale))

    @property
    def fixed_scale(self) -> float | None:
        """The number that the loss scale is set to again after each update; None where there is none."""
        return None if self.loss_scale in ("none", "dynamic") else float(self.loss_scale)

    def require(self, model: nn.Module, device: torch.device, example: Tensor) -> None:
        """Try a forward and a backward pass, and an update where the loss is scaled.

        model: left as it is
        example: (N, C, H, W) float32, on the device

        Raises: UserError with the device's own reason where it cannot compute so.
        """
        if self.name == "fp32":
            return
        twin = self.copy_of(model).to(device).train()
        try:
            logits = self.logits(twin, example)
            loss = F.cross_entropy(logits, torch.zeros(len(example), dtype=torch.int64, device=device))
            scaler = self.make_scaler(device)
            scaler.scale(loss).backward()
            if scaler.is_enabled():
                scaler.step(ak.MasterSGD(twin.parameters(), lr=0.0))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            scaled = "" if self.loss_scale == "none" else f" with loss scale {self.loss_scale}"
            raise UserError(f"precision: {self.name}{scaled} does not run on {device}: {reason}") from error


def _number(loss_scale: str | float) -> str:
    """A float32 number in its one spelling."""
    try:
        value = float(loss_scale)
    except (TypeError, ValueError):
        value = math.nan
    if not _FLOAT32.tiny <= value <= _FLOAT32.max:
        raise UserError(f"loss_scale: wanted none, dynamic or a float32 number above 0, got {loss_scale}")
    return f"{value:g}"


FP32 = Precision()
