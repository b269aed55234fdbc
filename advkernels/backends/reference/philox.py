"""Philox4x32-10 in int64 arithmetic, and which of its numbers an element gets."""

import torch
from torch import Tensor

from advkernels.backends.reference.images import per_sample

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox_bits(state: Tensor, index: Tensor) -> Tensor:
    """The 32 random bits of each element: lane index % 4 of Philox4x32-10 at counter (index // 4, draw).

    state: (2,) int64, (seed, draw)
    index: int64, logical element index
    Returns: int64 in [0, 2**32), the shape of index
    """
    group, lane = index.div(4, rounding_mode="floor"), index.remainder(4)
    return philox_words(state, group).gather(-1, lane.unsqueeze(-1)).squeeze(-1)


def philox_words(state: Tensor, group: Tensor) -> Tensor:
    """The four words of Philox4x32-10 at counter (group, draw).

    state: (2,) int64, (seed, draw)
    group: int64
    Returns: int64 in [0, 2**32), the shape of group and 4
    """
    key = [state[0] & _MASK32, state[0] >> 32 & _MASK32]
    counter = [group & _MASK32, group >> 32 & _MASK32, state[1] & _MASK32, state[1] >> 32 & _MASK32]
    counter = [word.expand_as(group) for word in counter]
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], counter[0])
        high1, low1 = _multiply(_MULTIPLIERS[1], counter[2])
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(word + weyl) & _MASK32 for word, weyl in zip(key, _WEYL, strict=True)]
    return torch.stack(counter, -1)


def logical_index(x: Tensor, sample_index: Tensor | None) -> Tensor:
    """(N, C, H, W) int64: the index in N, C, H, W order, with sample_index[n] in the place of n."""
    index = torch.arange(x.numel(), dtype=torch.int64, device=x.device).view(x.shape)
    if sample_index is None or x.numel() == 0:
        return index
    features = x.numel() // x.shape[0]
    within = index[:1]
    return per_sample(sample_index, x) * features + within


def sample_numbers(x: Tensor, sample_index: Tensor | None) -> Tensor:
    """(N,) int64: sample_index, or the position in the batch."""
    samples = x.shape[0] if x.dim() else 1
    return torch.arange(samples, dtype=torch.int64, device=x.device) if sample_index is None else sample_index


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32 x 32 bit product, in int64 arithmetic that never overflows."""
    low = constant * (word & 0xFFFF)
    high = constant * (word >> 16) + (low >> 16)
    return high >> 16, (high << 16 | low & 0xFFFF) & _MASK32
