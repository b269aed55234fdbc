"""Learning rates, one an update."""

from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cyclic(update: int, updates: int) -> float:
    """Factor that rises linearly from 0 to 1 at half of all updates and falls to 0 at their end.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.1.
    """
    return max(0.0, 1 - abs(2 * update / updates - 1))


def multistep(update: int, updates: int) -> float:
    """Factor 1, from half of all updates 0.1, from three quarters 0.01."""
    if 4 * update >= 3 * updates:
        return 0.01
    return 0.1 if 2 * update >= updates else 1.0


SCHEDULES = {"cyclic": cyclic, "multistep": multistep}


def build(name: str, optimizer: Optimizer, updates: int) -> LambdaLR:
    """A scheduler to be stepped after every update.

    name: one of `SCHEDULES`; its factor is of the optimizer's learning rate
    updates: in the whole run
    """
    return LambdaLR(optimizer, partial(SCHEDULES[name], updates=updates))
