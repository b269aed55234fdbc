"""Learning rates against NumPy's interpolation and torch's own schedulers."""

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, MultiStepLR

from freefast.training import schedules


def optimizer() -> SGD:
    return SGD([torch.zeros(1, requires_grad=True)], lr=0.2)


def rates(scheduler: LRScheduler, updates: int) -> list[float]:
    seen = []
    for _ in range(updates):
        seen.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("updates", [1, 7, 8, 391 * 2])
def test_cyclic_goes_up_to_half_and_down(updates: int) -> None:
    wanted = 0.2 * np.interp(np.arange(updates), [0, updates / 2, updates], [0, 1, 0])
    np.testing.assert_allclose(
        rates(schedules.build("cyclic", optimizer(), updates), updates), wanted, rtol=0, atol=1e-15
    )


def test_cyclic_is_torchs() -> None:
    theirs = CyclicLR(optimizer(), 0.0, 0.2, step_size_up=20, step_size_down=20, cycle_momentum=False)
    ours = schedules.build("cyclic", optimizer(), 40)
    np.testing.assert_allclose(rates(ours, 40), rates(theirs, 40), rtol=0, atol=1e-15)


def test_cyclic_ends_at_zero_and_stays() -> None:
    assert [schedules.cyclic(update, 4) for update in range(6)] == [0, 0.5, 1, 0.5, 0, 0]


def test_multistep_is_torchs() -> None:
    theirs = MultiStepLR(optimizer(), milestones=[20, 30], gamma=0.1)
    ours = schedules.build("multistep", optimizer(), 40)
    np.testing.assert_allclose(rates(ours, 40), rates(theirs, 40), rtol=1e-12)


def test_multistep_of_an_odd_number_steps_at_the_first_update_behind() -> None:
    factors = [schedules.multistep(update, 7) for update in range(7)]
    assert factors == [1, 1, 1, 1, 0.1, 0.1, 0.01]
