"""Standard, Fast, Free and PGD training as a loop in plain PyTorch: the report's, with autocast for its apex."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.threat import ThreatModel

PADDING = 4
WORKERS = min(4, os.cpu_count() or 1)


class HostImages(Dataset[tuple[Tensor, int]]):
    """Normalised float32 images on the host, each cropped at random from a padding of 4 pixels, and flipped.

    augment: without it the images are as they are
    """

    def __init__(self, data: ImageData, augment: bool) -> None:
        mean, std = (torch.tensor(row).view(-1, 1, 1) for row in (data.mean, data.std))
        images = data.train.images.float().div_(255).sub_(mean).div_(std)
        self.black, self.size, self.augment = -mean / std, images.shape[2:], augment
        self.images, self.labels = images, data.train.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = int(self.labels[index])
        if not self.augment:
            return self.images[index], label
        height, width = self.size
        padded = self.black.expand(-1, height + 2 * PADDING, width + 2 * PADDING).clone()
        padded[:, PADDING:-PADDING, PADDING:-PADDING] = self.images[index]
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = padded[:, top : top + height, left : left + width]
        return image.flip(-1) if torch.rand(()) < 0.5 else image, label


def loader(data: ImageData, config: TrainConfig) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled whole batches from processes that stay, in page-locked memory for a GPU."""
    pin = torch.device(config.device).type == "cuda"
    return DataLoader(
        HostImages(data, config.augment), config.batch_size,
        shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True, pin_memory=pin,
    )  # fmt: skip


class PlainLoop:
    """One step on a batch, of the method and with the numbers of a run's settings.

    updates: in the whole run
    half: what the model is autocast to, with a loss scale for float16; None leaves float32

    Source: Madry et al. 2017, section 2.1; Wong et al. 2020, "Fast is better than free", algorithm 3; Shafahi et al.
        2019, "Adversarial training for free!", algorithm 1; the step sizes and learning rates of the report.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, threat: ThreatModel, updates: int, half: torch.dtype | None
    ) -> None:
        device = torch.device(config.device)
        self.model, self.config, self.half, self.device_type = model.to(device).train(), config, half, device.type
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr_max, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, 0.0, config.lr_max, updates // 2, updates - updates // 2, cycle_momentum=False
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)
        rows = (threat.model_epsilon, threat.step(config.alpha or 0.0), threat.lower, threat.upper)
        self.epsilon, self.alpha, self.lower, self.upper = (
            torch.tensor(row, device=device).view(-1, 1, 1) for row in rows
        )
        self.sums = torch.zeros(2, device=device)
        """Of the samples so far: loss, and how many were classified right."""
        self.delta: Tensor | None = None

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch.

        x: (N, C, H, W) float32, model units, on the device
        y: (N,) int64
        """
        match self.config.method:
            case "free":
                self._free(x, y, self.config.replays)
            case "fast":
                self._learn(self._attack(x, y, 1), y)
            case "pgd":
                self._learn(self._attack(x, y, self.config.pgd_steps), y)
            case "standard":
                self._learn(x, y)

    def _attack(self, x: Tensor, y: Tensor, steps: int) -> Tensor:
        """Sign steps from a random start, each with a whole backward pass."""
        delta = (2 * torch.rand_like(x) - 1) * self.epsilon
        delta = clamp(delta, self.lower - x, self.upper - x)
        for _ in range(steps):
            delta.requires_grad_()
            self._backward(x + delta, y)
            delta = self._ascend(delta, x, self.alpha)
        return x + delta

    def _ascend(self, delta: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
        assert delta.grad is not None
        moved = delta.detach() + alpha * torch.sign(delta.grad)
        moved = clamp(moved, -self.epsilon, self.epsilon)
        moved[: len(x)] = clamp(moved[: len(x)], self.lower - x, self.upper - x)
        return moved

    def _learn(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        loss, logits = self._backward(x, y)
        self._update()
        self._count(loss, logits, y)

    def _free(self, x: Tensor, y: Tensor, replays: int) -> None:
        """Steps of weights and perturbation, one backward pass for both."""
        if self.delta is None:
            self.delta = torch.zeros_like(x)
        for _ in range(replays):
            delta = self.delta.requires_grad_()
            self.optimizer.zero_grad()
            loss, logits = self._backward(x + delta[: len(x)], y)
            self.delta = self._ascend(delta, x, self.epsilon)
            self._update()
        self._count(loss, logits, y)

    def _backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device_type, self.half, enabled=self.half is not None):
            logits = self.model(x)
            loss = F.cross_entropy(logits, y)
        self.scaler.scale(loss).backward()
        return loss, logits

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def _count(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        self.sums += torch.stack([loss.detach() * len(y), (logits.argmax(1) == y).sum()])


def clamp(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Between two tensors."""
    return torch.max(torch.min(x, upper), lower)
