"""Learning rates, one an update."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def cyclic(update: int, updates: int, peak: float = 0.5) -> float:
    """Factor that rises linearly from 0 to 1 at the peak and falls to 0 at the end of all updates.

    peak: fraction of all updates, in [0, 1); 0 begins with 1

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.1.
    """
    done = update / updates
    rise = done / peak if peak else 1.0
    return max(0.0, min(rise, (1 - done) / (1 - peak)))


def multistep(update: int, updates: int) -> float:
    """Factor 1, from half of all updates 0.1, from three quarters 0.01."""
    if 4 * update >= 3 * updates:
        return 0.01
    return 0.1 if 2 * update >= updates else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {"cyclic": cyclic, "multistep": multistep}


class Scheduler:
    """The learning rate of every update, looked up on the device: stepping never waits for it.

    The optimiser reads one tensor whose address stays the same, so that a captured graph goes on with it.

    optimizer: of one parameter group, whose learning rate becomes a 0-dim float32 tensor on the device of its weights
    rates: one an update, from the first; the last one stays

    Raises: ValueError where there are several groups, or no rates.
    """

    def __init__(self, optimizer: Optimizer, rates: Sequence[float]) -> None:
        if len(optimizer.param_groups) != 1 or not rates:
            got = f"{len(optimizer.param_groups)} and {len(rates)}"
            raise ValueError(f"Scheduler: wanted one parameter group and at least one rate, got {got}")
        self.rates = tuple(rates)
        self._optimizer = optimizer
        device = optimizer.param_groups[0]["params"][0].device
        self._table = torch.tensor(rates, dtype=torch.float32, device=device)
        self._update = torch.zeros(1, dtype=torch.int64, device=device)
        self._rate = torch.empty(1, dtype=torch.float32, device=device)
        self._look_up()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `step` reads and writes."""
        return self._table, self._update, self._rate

    @property
    def update(self) -> Tensor:
        """(1,) int64 on the device, index into `rates` of the next update."""
        return self._update

    def step(self) -> None:
        """Go on to the next update."""
        self._update.add_(1).clamp_(max=len(self.rates) - 1)
        torch.index_select(self._table, 0, self._update, out=self._rate)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, for a checkpoint."""
        return {"update": self._update.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state in place; to be called behind the optimiser's, which brings a learning rate of its own."""
        self._update.copy_(state["update"])
        self._look_up()

    def _look_up(self) -> None:
        torch.index_select(self._table, 0, self._update, out=self._rate)
        self._optimizer.param_groups[0]["lr"] = self._rate[0]


def build(name: str, optimizer: Optimizer, updates: int, **options: float) -> Scheduler:
    """A scheduler to be stepped after every update.

    name: one of `SCHEDULES`; its factor is of the optimizer's learning rate
    updates: in the whole run
    options: the schedule's own: `peak` (cyclic)
    """
    factor, largest = SCHEDULES[name], optimizer.param_groups[0]["lr"]
    return Scheduler(optimizer, [largest * factor(update, updates, **options) for update in range(updates + 1)])
