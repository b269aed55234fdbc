"""The operations written a second time, from their papers and nothing of this library: the tests' independent truth."""

import numpy as np
import torch
from torch import Tensor


def philox4x32_10(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al. 2011, section 3.3, in Python integers."""
    x, k = list(counter), list(key)
    for _ in range(10):
        hi0, lo0 = divmod(0xD2511F53 * x[0], 2**32)
        hi1, lo1 = divmod(0xCD9E8D57 * x[2], 2**32)
        x = [hi1 ^ x[1] ^ k[0], lo1, hi0 ^ x[3] ^ k[1], lo0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return x


def uniform_number(index: int, seed: int, draw: int, epsilon: float) -> np.float32:
    """U(-epsilon, epsilon) of one element, every operation rounded to float32."""
    group, lane = divmod(index, 4)
    counter = [group % 2**32, group // 2**32 % 2**32, draw % 2**32, draw // 2**32]
    bits = philox4x32_10(counter, [seed % 2**32, seed // 2**32])[lane]
    u = np.float32(bits >> 8) * np.float32(2.0**-24)
    radius = np.float32(epsilon)
    return np.float32(np.float32(u * (np.float32(2) * radius)) - radius)


def sign_step(
    delta: Tensor, grad: Tensor, x: Tensor, alpha: Tensor, epsilon: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """Madry et al. 2017, section 2.1, as the report's code has it, in float32; bounds broadcast over x."""
    d = delta.float() + alpha * torch.sign(grad.float())
    d = torch.clamp(d, -epsilon, epsilon)
    return torch.clamp(d, lower - x.float(), upper - x.float())


def sgd_step(w, g, buffer, first, *, lr, momentum, dampening, weight_decay, nesterov, maximize):
    """torch.optim.SGD's documented rule on NumPy arrays of one dtype, one rounding an operation."""
    t = w.dtype.type
    g = -g if maximize else g
    g = g + t(weight_decay) * w if weight_decay else g
    if momentum:
        buffer = g.copy() if first else t(momentum) * buffer + t(1 - dampening) * g
        g = g + t(momentum) * buffer if nesterov else buffer
    return w - t(lr) * g, buffer
