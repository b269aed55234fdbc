"""Every operation in plain PyTorch: the definition that all other backends equal bit for bit.

The arithmetic is float32, one rounding an operation, and one more at the store; norms are float64. Arguments are those
of the operators in `schemas.py`.
"""

from advkernels.backends.reference.augment import augment_
from advkernels.backends.reference.l2 import l2_init_, l2_step_
from advkernels.backends.reference.linf import sign_step_, uniform_init_
from advkernels.backends.reference.normalization import (
    batch_moments_,
    normalize_relu_,
    normalize_relu_backward_,
    normalize_relu_sums_,
)
from advkernels.backends.reference.sgd import sgd_step_

__all__ = [
    "augment_",
    "batch_moments_",
    "l2_init_",
    "l2_step_",
    "normalize_relu_",
    "normalize_relu_backward_",
    "normalize_relu_sums_",
    "sgd_step_",
    "sign_step_",
    "uniform_init_",
]
