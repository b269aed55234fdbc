"""GradAlign: how far the loss is from linear inside the ball."""

import torch
from torch import Tensor

from freefast.attacks.gradient import input_gradient
from freefast.training.state import TrainState


def misalignment(state: TrainState, images: Tensor, labels: Tensor) -> Tensor:
    """Mean over the samples of 1 - cos(gradient at x, gradient at x + eta), eta uniform in the ball; differentiable.

    x + eta is not clamped to the box of images, as in the paper.

    Gradients are of the cross-entropy with respect to the images, in train mode; their length, and so an attack's
    scale, does not count. A sample with a gradient of zero is left out of the mean.

    images: (N, C, H, W) float32, model units
    labels: (N,) int64
    Returns: 0-dim float32
    Source: Andriushchenko and Flammarion 2020, "Understanding and improving fast adversarial training", section 4.1.
    """
    problem = state.problem(images, labels)
    noisy = torch.empty_like(images)
    problem.ball.unboxed().start(images, state.rng, out=noisy)
    here, there = (
        input_gradient(problem.model, x, problem.losses, problem.precision, differentiable=True)[0]
        for x in (images, noisy)
    )
    squares = (here.square().sum((1, 2, 3)), there.square().sum((1, 2, 3)))
    counts = (squares[0] > 0) & (squares[1] > 0)
    lengths = [torch.where(counts, square, 1.0).sqrt() for square in squares]  # the root's slope at 0 is infinite
    cosine = (here * there).sum((1, 2, 3)) / (lengths[0] * lengths[1])
    return torch.where(counts, 1 - cosine, 0.0).sum() / counts.sum().clamp(min=1)
