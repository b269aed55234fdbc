"""A Fast training step of PreActResNet18, batch 32, against a loop whose attack also fills the weights' gradients."""

import copy

import torch
import torch.nn.functional as F
from comparison import Comparison

import advkernels as ak
from freefast import models
from freefast.threat import ThreatModel
from freefast.training.fast import fast_step
from freefast.training.schedules import Scheduler
from freefast.training.state import TrainState

THREAT = ThreatModel(epsilon=8 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616))
ALPHA = 10 / 255
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def column(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(3, 1, 1)


class PlainFast:
    """The report's loop: `loss.backward()` in the attack, SGD of torch, four eager projections."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.optimizer = model, torch.optim.SGD(model.parameters(), **SGD)
        self.epsilon, self.alpha = column(THREAT.model_epsilon), column(THREAT.step(ALPHA))
        self.lower, self.upper = column(THREAT.lower), column(THREAT.upper)

    def project(self, delta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.max(torch.min(delta, self.upper - x), self.lower - x)

    def step(self, x: torch.Tensor, y: torch.Tensor, start: torch.Tensor) -> None:
        delta = self.project(start * self.epsilon, x).requires_grad_()
        F.cross_entropy(self.model(x + delta), y).backward()
        stepped = delta.detach() + self.alpha * torch.sign(delta.grad)
        delta = self.project(torch.max(torch.min(stepped, self.epsilon), -self.epsilon), x)
        loss = F.cross_entropy(self.model(x + delta), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def benchmark_fast_step(compare: Comparison) -> None:
    model = models.build("preactresnet18", num_classes=10, channels=3)
    plain = PlainFast(copy.deepcopy(model))
    optimizer = ak.MasterSGD(model.parameters(), **SGD)
    x, y = THREAT.normalize(torch.rand(32, 3, 32, 32)), torch.randint(0, 10, (32,))
    state = TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=Scheduler(optimizer, [SGD["lr"]]),
        threat=THREAT,
        rng=ak.PhiloxState(0),
        delta=torch.zeros_like(x),
    )
    fast_step(state, x, y, alpha=ALPHA, delta_init="zero")
    plain.step(x, y, torch.zeros_like(x))
    # torch.optim.SGD fuses products and sums: one update, a few ulp.
    for one, other in zip(model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    contenders = {
        "advkernels": lambda: fast_step(state, x, y, alpha=ALPHA, delta_init="random"),
        "plain loop": lambda: plain.step(x, y, torch.empty_like(x).uniform_(-1, 1)),
    }
    compare(contenders, {"plain loop": 1.2}, rounds=7)
