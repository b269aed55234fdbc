"""A Fast training step of PreActResNet18, batch 32, in bfloat16 autocast against float32, both channels last."""

import copy

import pytest
import torch
from comparison import Comparison

import advkernels as ak
from freefast import Precision, models
from freefast.bench.config import multiplies_bfloat16
from freefast.threat import ThreatModel
from freefast.training.fast import fast_step
from freefast.training.schedules import Scheduler
from freefast.training.state import TrainState


def benchmark_amp_step(compare: Comparison) -> None:
    if not multiplies_bfloat16():
        pytest.skip("this CPU multiplies no bfloat16 numbers: oneDNN emulates them, many times slower than float32")
    model = models.build("preactresnet18", num_classes=10, channels=3).to(memory_format=torch.channels_last)
    x = torch.rand(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (32,))
    states = {name: make_state(copy.deepcopy(model), Precision(name=name), x) for name in ("amp-bf16", "fp32")}
    losses = [fast_step(state, x, y, alpha=10 / 255, delta_init="zero")[0] for state in states.values()]
    torch.testing.assert_close(*losses, rtol=0.05, atol=0)  # rounding to 8 bits, through 18 layers
    contenders = {
        name: lambda state=state: fast_step(state, x, y, alpha=10 / 255, delta_init="random")
        for name, state in states.items()
    }
    compare(contenders, {"fp32": 1.7}, rounds=7)


def make_state(model: torch.nn.Module, precision: Precision, x: torch.Tensor) -> TrainState:
    optimizer = ak.MasterSGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=Scheduler(optimizer, [0.01]),
        threat=ThreatModel(epsilon=8 / 255),
        rng=ak.PhiloxState(0),
        precision=precision,
        delta=torch.zeros_like(x),
    )
