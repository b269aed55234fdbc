"""BatchNorm and ReLU behind a sum, forwards and backwards: ours, PyTorch's own lines, and torch.compile of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import advkernels as ak

Layer = Callable[[], tuple[Tensor, ...]]
PASSES = 11
"""Tensors of the images' size that ours reads or writes at least: forwards 2 + 1, 1 + 1, backwards 2, 3 + 1."""


class Norm:
    """One layer in training and what flows through it, in channels_last memory."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        def images() -> Tensor:
            random = torch.randn(shape, device=device).to(dtype)
            return random.to(memory_format=torch.channels_last).requires_grad_()

        self.x, self.residual = images(), images()
        self.grads = images().detach(), images().detach()
        channels = shape[1]
        self.weight = torch.rand(channels, device=device).requires_grad_()
        self.bias = torch.randn(channels, device=device).requires_grad_()
        self.running = torch.zeros(channels, device=device), torch.ones(channels, device=device)
        self.inputs = [self.x, self.residual, self.weight, self.bias]
        self.compiled = torch.compile(self._eager, dynamic=False)

    def ours(self) -> tuple[Tensor, ...]:
        """Of the backend that is chosen: output, sum, gradients."""
        return self._with_gradients(
            *ak.add_batch_norm_relu(self.x, self.residual, *self.running, self.weight, self.bias, True)
        )

    def eager(self) -> tuple[Tensor, ...]:
        """PyTorch's own."""
        return self._with_gradients(*self._eager(*self.inputs))

    def compile(self) -> tuple[Tensor, ...]:
        """By Inductor."""
        return self._with_gradients(*self.compiled(*self.inputs))

    def _eager(self, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        total = x + residual
        return F.relu(F.batch_norm(total, *self.running, weight, bias, True)), total

    def _with_gradients(self, out: Tensor, total: Tensor) -> tuple[Tensor, ...]:
        return out.detach(), total.detach(), *torch.autograd.grad((out, total), self.inputs, self.grads)

    def check(self, layer: Layer) -> None:
        """The layer gives what PyTorch's lines give; gradients of elements at the ReLU's corner may jump."""
        near = 5e-2 if self.x.dtype != torch.float32 else 1e-2
        for one, other in zip(layer(), self.eager(), strict=True):
            assert (one.double() - other.double()).norm() < near * other.double().norm()
