"""Random numbers keyed by several integers."""

import numpy as np
import torch


def generator(*key: int) -> torch.Generator:
    """A CPU generator of its own for every key of non-negative integers, such as (seed, epoch)."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def derived_seed(*key: int) -> int:
    """A seed of its own in [0, 2**63) for every key of non-negative integers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
