"""Fast and Free training in plain PyTorch, as their papers describe them: autocast to float16, GradScaler, SGD."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from freefast.data import ImageData
from freefast.threat import ThreatModel

PADDING = 4
WORKERS = min(4, os.cpu_count() or 1)


class HostImages(Dataset):
    """Normalised float32 images on the host, each cropped at random from a padding of 4 pixels, and flipped."""

    def __init__(self, data: ImageData) -> None:
        mean, std = (torch.tensor(row).view(-1, 1, 1) for row in (data.mean, data.std))
        images = data.train.images.float().div_(255).sub_(mean).div_(std)
        self.black, self.size = -mean / std, images.shape[2:]
        self.images, self.labels = images, data.train.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width = self.size
        padded = self.black.expand(-1, height + 2 * PADDING, width + 2 * PADDING).clone()
        padded[:, PADDING:-PADDING, PADDING:-PADDING] = self.images[index]
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = padded[:, top : top + height, left : left + width]
        return image.flip(-1) if torch.rand(()) < 0.5 else image, int(self.labels[index])


def loader(data: ImageData, batch_size: int, device: str) -> DataLoader:
    """Shuffled batches from processes, in page-locked memory for a GPU."""
    return DataLoader(
        HostImages(data), batch_size, shuffle=True, drop_last=True, num_workers=WORKERS, pin_memory=device == "cuda"
    )


class PlainLoop:
    """One step on a batch.

    Source: Wong et al. 2020, "Fast is better than free", algorithm 3; Shafahi et al. 2019, "Adversarial training for
        free!", algorithm 1; the step sizes and learning rates of the report.
    """

    def __init__(self, model: nn.Module, threat: ThreatModel, device: str, *, lr: float, updates: int) -> None:
        self.model, self.device = model.to(device).train(), device
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, 0.0, lr, step_size_up=updates // 2, step_size_down=updates // 2, cycle_momentum=False
        )
        self.scaler = torch.amp.GradScaler(device)
        rows = (threat.model_epsilon, threat.step(1.25 * threat.epsilon), threat.lower, threat.upper)
        self.epsilon, self.alpha, self.lower, self.upper = (
            torch.tensor(row, device=device).view(-1, 1, 1) for row in rows
        )
        self.sums = torch.zeros(2, device=device)
        self.delta: Tensor | None = None

    def fast(self, x: Tensor, y: Tensor) -> None:
        """FGSM from a random start, then a step of the weights."""
        start = (2 * torch.rand_like(x) - 1) * self.epsilon
        delta = clamp(start, self.lower - x, self.upper - x).requires_grad_()
        self._backward(x + delta, y)
        assert delta.grad is not None
        with torch.no_grad():
            delta = clamp(delta + self.alpha * torch.sign(delta.grad), -self.epsilon, self.epsilon)
            delta = clamp(delta, self.lower - x, self.upper - x)
        self.optimizer.zero_grad()
        loss, logits = self._backward(x + delta, y)
        self._update()
        self._count(loss, logits, y)

    def free(self, x: Tensor, y: Tensor, replays: int = 8) -> None:
        """So many steps of weights and perturbation on one batch."""
        if self.delta is None:
            self.delta = torch.zeros_like(x)
        for _ in range(replays):
            delta = self.delta.requires_grad_()
            self.optimizer.zero_grad()
            loss, logits = self._backward(x + delta[: len(x)], y)
            assert delta.grad is not None
            with torch.no_grad():
                moved = clamp(delta + self.epsilon * torch.sign(delta.grad), -self.epsilon, self.epsilon)
                moved[: len(x)] = clamp(moved[: len(x)], self.lower - x, self.upper - x)
            self.delta = moved
            self._update()
        self._count(loss, logits, y)

    def _backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device, torch.float16):
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
