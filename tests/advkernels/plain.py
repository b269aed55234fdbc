"""The operations written a second time, from their papers and nothing of this library: the tests' independent truth."""

import statistics

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


def random_bits(index: int, seed: int, draw: int) -> int:
    """The upper 24 random bits of one element."""
    group, lane = divmod(index, 4)
    counter = [group % 2**32, group // 2**32 % 2**32, draw % 2**32, draw // 2**32]
    return philox4x32_10(counter, [seed % 2**32, seed // 2**32])[lane] >> 8


def uniform_number(index: int, seed: int, draw: int, epsilon: float) -> np.float32:
    """U(-epsilon, epsilon) of one element, every operation rounded to float32."""
    u = np.float32(random_bits(index, seed, draw)) * np.float32(2.0**-24)
    radius = np.float32(epsilon)
    return np.float32(np.float32(u * (np.float32(2) * radius)) - radius)


def augment(
    images: Tensor, index: Tensor, mean: Tensor, std: Tensor, seed: int, draw: int, padding: int, flip: bool
) -> Tensor:
    """One sample after the other: zeros around it, a window of it, mirrored; then float32; mean and std: (C or 1,)."""
    samples = [images[:0]]
    height, width = images.shape[2:]
    for number in index.tolist():
        counter = [number % 2**32, number // 2**32, draw % 2**32, draw // 2**32]
        row, column, mirror, _ = philox4x32_10(counter, [seed % 2**32, seed // 2**32])
        top, left = ((word >> 8) * (2 * padding + 1) // 2**24 for word in (row, column))
        padded = torch.nn.functional.pad(images[number : number + 1], [padding] * 4)
        window = padded[:, :, top : top + height, left : left + width]
        samples.append(window.flip(-1) if flip and mirror >= 2**31 else window)
    return torch.cat(samples).float().div_(255).sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def sign_step(
    delta: Tensor, grad: Tensor, x: Tensor, alpha: Tensor, epsilon: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """Madry et al. 2017, section 2.1, as the report's code has it, in float32; bounds broadcast over x."""
    d = delta.float() + alpha * torch.sign(grad.float())
    d = torch.clamp(d, -epsilon, epsilon)
    return torch.clamp(d, lower - x.float(), upper - x.float())


def l2_step(
    delta: Tensor, grad: Tensor, x: Tensor, alpha: Tensor, epsilon: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """Steepest ascent within an l2 ball (Madry et al. 2017, section 2.1), in float64; bounds broadcast over x."""
    d, g, x, alpha, epsilon = (tensor.double() for tensor in (delta, grad, x, alpha, epsilon))
    norm = sample_norm(alpha * g)
    step = torch.where((norm > 0) & norm.isfinite(), alpha.abs() * alpha * g / norm, 0.0)
    d = d + step
    length = sample_norm(torch.where(epsilon > 0, d / epsilon, 0.0))
    d = torch.where(epsilon > 0, d, 0.0 * d) / torch.where(length > 1, length, 1.0)
    return torch.clamp(d, lower.double() - x, upper.double() - x)


def sample_norm(v: Tensor) -> Tensor:
    """(N, 1, ...): the norm of each sample of v, (N, ...)."""
    return torch.linalg.vector_norm(v.reshape(len(v), v[0].numel() if len(v) else 0), dim=1).view(
        -1, *[1] * (v.dim() - 1)
    )


def ball_point(numbers: list[int], sample: int, seed: int, draw: int) -> np.ndarray:
    """A point of the unit l2 ball, of the elements with these numbers: r z / |z|, float64."""
    normal = statistics.NormalDist()
    z = np.array([normal.inv_cdf((random_bits(i, seed, draw) + 0.5) * 2.0**-24) for i in numbers])
    radius = random_bits(4 * (sample + 2**62), seed, draw) * 2.0**-24
    return radius * z / np.linalg.norm(z)


def sgd_step(w, g, buffer, first, *, lr, momentum, dampening, weight_decay, nesterov, maximize):
    """torch.optim.SGD's documented rule on NumPy arrays of one dtype, one rounding an operation."""
    t = w.dtype.type
    g = -g if maximize else g
    g = g + t(weight_decay) * w if weight_decay else g
    if momentum:
        buffer = g.copy() if first else t(momentum) * buffer + t(1 - dampening) * g
        g = g + t(momentum) * buffer if nesterov else buffer
    return w - t(lr) * g, buffer
