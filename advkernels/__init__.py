"""Fused operations for adversarial training: the same numbers from plain PyTorch, C++, CUDA and Triton."""

from advkernels.augmentation import augment
from advkernels.dispatch import BackendUnavailable, backend
from advkernels.functional import (
    l2_init,
    l2_init_,
    l2_step,
    l2_step_,
    sign_step,
    sign_step_,
    uniform_init,
    uniform_init_,
)
from advkernels.normalization import add_batch_norm_relu, batch_norm_relu
from advkernels.optim import MasterSGD
from advkernels.rng import PhiloxState

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "MasterSGD",
    "PhiloxState",
    "__version__",
    "add_batch_norm_relu",
    "augment",
    "backend",
    "batch_norm_relu",
    "l2_init",
    "l2_init_",
    "l2_step",
    "l2_step_",
    "sign_step",
    "sign_step_",
    "uniform_init",
    "uniform_init_",
]
