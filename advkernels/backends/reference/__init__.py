"""Every operation in plain PyTorch: the definition that all other backends equal bit for bit.

The arithmetic is float32, one rounding an operation, and one more at the store; norms are float64. Arguments are those
of the operators in `schemas.py`.
"""

from advkernels.backends.reference.augment import augment_
from advkernels.backends.reference.l2 import l2_init_, l2_step_
from advkernels.backends.reference.linf import sign_step_, uniform_init_
from advkernels.backends.reference.sgd import sgd_step_

__all__ = ["augment_", "l2_init_", "l2_step_", "sgd_step_", "sign_step_", "uniform_init_"]
