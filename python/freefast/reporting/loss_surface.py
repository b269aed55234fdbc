"""The loss around test samples, over a plane through each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from freefast.attacks.base import device_of
from freefast.attacks.gradient import eval_mode, input_gradient
from freefast.attacks.losses import cross_entropy
from freefast.attacks.problem import classify
from freefast.data.seeding import generator
from freefast.precision import Precision
from freefast.threat import ThreatModel

_BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class LossSurface:
    """Cross-entropy at x + a sign(gradient) + b r, r being random signs; a and b from -epsilon to epsilon.

    Sources: Shafahi et al. 2019, "Adversarial training for free!", section 5 (the plane); Qin et al. 2019,
        "Adversarial robustness through local linearization", section 4 (local linearity).
    """

    offsets: Tensor
    """(P,) float32, the values of a and of b, pixel units; the middle one is 0."""

    losses: Tensor
    """(N, P, P) float32, by sample, a and b."""

    wrong: Tensor
    """(N, P, P) bool: misclassified there."""

    slopes: Tensor
    """(N, 2) float32, the loss's slopes at x along a and along b, per pixel unit."""

    @property
    def mean(self) -> Tensor:
        """(P, P) float32, the loss averaged over the samples."""
        return self.losses.mean(0)

    @property
    def in_ball(self) -> Tensor:
        """(P, P) bool: where no pixel is moved by more than epsilon, |a| + |b| <= epsilon."""
        steps = torch.arange(len(self.offsets)) - len(self.offsets) // 2
        return steps.abs()[:, None] + steps.abs() <= len(self.offsets) // 2

    @property
    def nonlinearity(self) -> float:
        """Largest distance of the loss from its tangent plane at x, within the ball; the mean over the samples.

        Qin et al. take the largest over the whole ball, of which this is a lower bound.
        """
        rise = self.slopes[:, :1, None] * self.offsets[:, None] + self.slopes[:, 1:, None] * self.offsets
        middle = len(self.offsets) // 2
        distance = (self.losses - self.losses[:, middle, middle, None, None] - rise).abs()
        return distance[:, self.in_ball].amax(1).mean().item()

    @property
    def misclassified(self) -> float:
        """Share of the samples that are misclassified somewhere within the ball."""
        return self.wrong[:, self.in_ball].any(1).float().mean().item()


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    points: int = 21,
    seed: int = 0,
    precision: Precision | None = None,
) -> LossSurface:
    """The loss surface of a model in eval mode; the model is left as it was.

    Pixels are not clipped to [0, 1]: the surface shows the loss and not the box. The random signs depend on the seed
    and the images' shape alone, so that models can be compared.

    images: (N, C, H, W) float32, pixel units
    labels: (N,) int64
    points: of the grid, along a and along b
    precision: how the model computes; None asks its weights

    Raises: ValueError where there are no images, labels do not match, or points is not odd and at least 3.
    """
    _check(images, labels, points)
    device = device_of(model, default=images.device)
    images, labels = images.to(device), labels.to(device)
    precision = precision or Precision.of(model)
    half = points // 2
    offsets = threat.epsilon * torch.arange(-half, half + 1) / half
    signs = rademacher(images.shape, seed).to(device)
    with eval_mode(model):
        gradient = _gradient(model, images, labels, threat, precision)
        directions = torch.stack([gradient.sign(), signs])
        losses, wrong = _over_grid(model, images, labels, threat, precision, offsets.to(device), directions)
    slopes = (gradient * directions).sum((2, 3, 4)).T
    return LossSurface(offsets=offsets, losses=losses.cpu(), wrong=wrong.cpu(), slopes=slopes.cpu())


def rademacher(shape: Sequence[int], seed: int) -> Tensor:
    """Random signs, float32: -1 or 1, as likely, depending on the seed and the shape alone."""
    return torch.randint(0, 2, tuple(shape), generator=generator(seed)).float() * 2 - 1


def _gradient(model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, precision: Precision) -> Tensor:
    """Of each sample's own loss, like images, per pixel unit."""
    x = threat.normalize(images)
    gradient, _ = input_gradient(model, x, lambda logits: cross_entropy(logits, labels), precision)
    own = len(x) / precision.attack_scale(len(x))  # of the scaled mean
    return gradient * threat.steps(torch.full_like(labels, own, dtype=torch.float32))


@torch.no_grad()
def _over_grid(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    precision: Precision,
    offsets: Tensor,
    directions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Losses and mistakes (N, P, P); directions: (2, N, C, H, W)."""
    shape = (len(images), len(offsets), len(offsets))
    losses, wrong = images.new_empty(shape), torch.empty(shape, dtype=torch.bool, device=images.device)
    places = torch.cartesian_prod(*(torch.arange(size, device=images.device) for size in shape))
    for sample, a, b in (part.unbind(1) for part in places.split(_BATCH_SIZE)):
        moved = images[sample]
        for offset, direction in zip((offsets[a], offsets[b]), directions, strict=True):
            moved = moved + offset.view(-1, 1, 1, 1) * direction[sample]
        logits = precision.logits(model, threat.normalize(moved))
        losses[sample, a, b] = cross_entropy(logits, labels[sample])
        wrong[sample, a, b] = classify(logits) != labels[sample]
    return losses, wrong


def _check(images: Tensor, labels: Tensor, points: int) -> None:
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"loss_surface: images: wanted (N > 0, C, H, W), got {tuple(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"loss_surface: labels: wanted ({len(images)},), got {tuple(labels.shape)}")
    if points < 3 or points % 2 == 0:
        raise ValueError(f"loss_surface: points: wanted an odd number of at least 3, got {points}")
