"""A Fast training step of PreActResNet18, batch 32, against the loop in plain PyTorch, both in float32."""

import copy

import pytest
import torch
from comparison import Comparison

import advkernels as ak
from freefast import TrainConfig, models
from freefast.bench.plain import PlainLoop
from freefast.data import CIFAR10_MEAN, CIFAR10_STD
from freefast.threat import ThreatModel
from freefast.training.fast import fast_step
from freefast.training.schedules import Scheduler
from freefast.training.state import TrainState

CONFIG = TrainConfig(method="fast", dataset="cifar10", lr_max=0.01, device="cpu")
THREAT = ThreatModel(epsilon=CONFIG.epsilon, mean=CIFAR10_MEAN, std=CIFAR10_STD)
SGD = {"lr": CONFIG.lr_max, "momentum": CONFIG.momentum, "weight_decay": CONFIG.weight_decay}


def benchmark_fast_step(compare: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build("preactresnet18", num_classes=10, channels=3)
    plain = PlainLoop(CONFIG, copy.deepcopy(model), THREAT, updates=1000, half=None)
    plain.optimizer.param_groups[0]["lr"] = CONFIG.lr_max  # the schedule begins at 0
    optimizer = ak.MasterSGD(model.parameters(), **SGD)
    x, y = THREAT.normalize(torch.rand(32, 3, 32, 32)), torch.randint(0, 10, (32,))
    state = TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=Scheduler(optimizer, [CONFIG.lr_max]),
        threat=THREAT,
        rng=ak.PhiloxState(0),
        delta=torch.zeros_like(x),
    )
    fast_step(state, x, y, alpha=CONFIG.alpha, delta_init="zero")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))  # a start at zero
        plain.step(x, y)
    # torch.optim.SGD fuses products and sums: one update, a few ulp.
    for one, other in zip(model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    contenders = {
        "advkernels": lambda: fast_step(state, x, y, alpha=CONFIG.alpha, delta_init="random"),
        "plain loop": lambda: plain.step(x, y),
    }
    compare(contenders, {"plain loop": 1.2}, rounds=7)
