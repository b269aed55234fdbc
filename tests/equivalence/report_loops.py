"""The report's algorithms 1 to 3 as its code ran them, in plain PyTorch and NumPy: nothing of this project in them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]
Update = Callable[[float], None]


class Sgd:
    """SGD with momentum and weight decay, every product and every sum rounded on its own."""

    def __init__(self, parameters: Iterable[Tensor], momentum: float = 0.9, weight_decay: float = 5e-4) -> None:
        self.parameters = list(parameters)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffers: list[Tensor | None] = [None] * len(self.parameters)

    @torch.no_grad()
    def __call__(self, lr: float) -> None:
        for index, weight in enumerate(self.parameters):
            gradient = weight.grad + self.weight_decay * weight
            old = self.buffers[index]
            buffer = gradient if old is None else self.momentum * old + gradient
            self.buffers[index] = buffer
            weight.copy_(weight - lr * buffer)


class Threat:
    """Epsilon and the box in normalised units, (C, 1, 1) float32 tensors, as the report's code computes them."""

    def __init__(self, epsilon: float, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        mu = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)
        self.device = device
        self.epsilon = self.size(epsilon)
        self.lower = ((0 - mu) / self.std).to(device)
        self.upper = ((1 - mu) / self.std).to(device)

    def size(self, pixels: float) -> Tensor:
        return (pixels / self.std).to(self.device)

    def project(self, delta: Tensor, x: Tensor) -> Tensor:
        delta = clamp(delta, -self.epsilon, self.epsilon)
        delta[: len(x)] = clamp(delta[: len(x)], self.lower - x, self.upper - x)
        return delta

    def random(self, x: Tensor, seed: int, draw: int) -> Tensor:
        u = torch.from_numpy(uniform(x.numel(), seed, draw)).view(x.shape).to(self.device)
        return clamp(u * (2 * self.epsilon) - self.epsilon, self.lower - x, self.upper - x)


def clamp(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.max(torch.min(x, upper), lower)


def uniform(count: int, seed: int, draw: int) -> np.ndarray:
    """Philox4x32-10, key (seed low, high), counter (group low, high, draw low, high), lane i % 4; 24 bits in [0, 1)."""
    word = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    group = np.arange((count + 3) // 4, dtype=np.uint64)
    x = [group & word, group >> shift, np.full_like(group, draw % 2**32), np.full_like(group, draw >> 32)]
    key = [seed % 2**32, seed >> 32]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [
            (second >> shift) ^ x[1] ^ np.uint64(key[0]),
            second & word,
            (first >> shift) ^ x[3] ^ np.uint64(key[1]),
            first & word,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    bits = np.stack(x, axis=1).reshape(-1)[:count]
    return (bits >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


def learn(model: nn.Module, x: Tensor, y: Tensor, update: Update, lr: float) -> None:
    """A descent step on a batch."""
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    update(lr)


def ascend(model: nn.Module, x: Tensor, y: Tensor, delta: Tensor, alpha: Tensor, threat: Threat) -> Tensor:
    """A step of the perturbation, its gradient from a whole backward pass."""
    delta = delta.clone().requires_grad_()
    F.cross_entropy(model(x + delta[: len(x)]), y).backward()
    return threat.project(delta.detach() + alpha * torch.sign(delta.grad), x)


def train_pgd(
    model: nn.Module, batches: Batches, lrs: Iterable[float], update: Update, threat: Threat, *,
    alpha: float, steps: int, seed: int,
) -> Tensor:  # fmt: skip
    """Algorithm 1 with a random start."""
    for draw, ((x, y), lr) in enumerate(zip(batches, lrs, strict=True)):
        delta = threat.random(x, seed, draw)
        for _ in range(steps):
            delta = ascend(model, x, y, delta, threat.size(alpha), threat)
        learn(model, x + delta, y, update, lr)
    return delta


def train_free(
    model: nn.Module, batches: Batches, lrs: Iterable[float], update: Update, threat: Threat, *,
    replays: int, batch_size: int,
) -> Tensor:  # fmt: skip
    """Algorithm 2: delta lives on, m replays a batch, one backward pass for delta and weights."""
    rates = iter(lrs)
    delta = None
    for x, y in batches:
        if delta is None:
            delta = torch.zeros(batch_size, *x.shape[1:], device=x.device)
        for _ in range(replays):
            delta.requires_grad_()
            model.zero_grad()
            F.cross_entropy(model(x + delta[: len(x)]), y).backward()
            delta = threat.project(delta.detach() + threat.epsilon * torch.sign(delta.grad), x)
            update(next(rates))
    return delta


def train_fast(
    model: nn.Module, batches: Batches, lrs: Iterable[float], update: Update, threat: Threat, *,
    alpha: float, delta_init: str, batch_size: int, seed: int,
) -> Tensor:  # fmt: skip
    """Algorithm 3, started at zero, at random, or where the last batch ended."""
    previous = None
    for draw, ((x, y), lr) in enumerate(zip(batches, lrs, strict=True)):
        if delta_init == "random":
            delta = threat.random(x, seed, draw)
        elif delta_init == "zero" or previous is None:
            delta = torch.zeros(batch_size if delta_init == "previous" else len(x), *x.shape[1:], device=x.device)
        else:
            delta = previous
        previous = ascend(model, x, y, delta, threat.size(alpha), threat)
        learn(model, x + previous[: len(x)], y, update, lr)
    return previous


def train_standard(model: nn.Module, batches: Batches, lrs: Iterable[float], update: Update) -> None:
    """No attack."""
    for (x, y), lr in zip(batches, lrs, strict=True):
        learn(model, x, y, update, lr)
