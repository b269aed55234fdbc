"""Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in integer arithmetic."""

import triton
import triton.language as tl


@triton.jit
def philox(group, seed, draw):
    """Four uint32 random words of each int64 group in a draw.

    key = (seed low, seed high), counter = (group low, group high, draw low, draw high).
    """
    key0 = seed.to(tl.uint32)
    key1 = (seed >> 32).to(tl.uint32)
    c0 = group.to(tl.uint32)
    c1 = (group >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0) + draw.to(tl.uint32)
    c3 = tl.zeros_like(c0) + (draw >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ key0
        c1 = product1.to(tl.uint32)
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ key1
        c3 = product0.to(tl.uint32)
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def random_bits(element, seed, draw, WIDTH: tl.constexpr):
    """uint32 bits (rows, WIDTH) of the elements from `element` (rows, 1) on, which 4 divides where WIDTH > 1."""
    if WIDTH == 1:
        w0, w1, w2, w3 = philox(element >> 2, seed, draw)
        lane = element & 3
        return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    else:
        group = (element >> 2) + tl.arange(0, WIDTH // 4)[None, :]
        w0, w1, w2, w3 = philox(group, seed, draw)
        words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # (rows, WIDTH / 4, 2, 2): word 2 i + j at [i, j]
        return tl.reshape(words, (element.shape[0], WIDTH))
