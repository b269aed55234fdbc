"""What the updates of a training run read and write."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

import advkernels as ak
from freefast.threat import ThreatModel


@dataclass(kw_only=True)
class TrainState:
    """A training run between two updates."""

    model: nn.Module
    """The classifier, in train mode."""

    optimizer: ak.MasterSGD
    """Updates the model's weights."""

    scheduler: LRScheduler
    """Sets the learning rate, stepped once an update."""

    threat: ThreatModel
    """The ball and the valid box."""

    rng: ak.PhiloxState
    """Random starts of the perturbations."""

    delta: Tensor
    """(batch_size, C, H, W) float32, model units: the perturbation that lives on from batch to batch.

    Of free, and of fast with delta_init "previous"; a smaller batch uses its first samples.
    """
