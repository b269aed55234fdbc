"""Learning rates against NumPy's interpolation and torch's own schedulers."""

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, MultiStepLR

import advkernels as ak
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
    ours = schedules.build("cyclic", optimizer(), updates).rates
    np.testing.assert_allclose(ours[:-1], wanted, rtol=0, atol=1e-15)
    assert ours[-1] == 0


@pytest.mark.parametrize("peak", [0.0, 0.2, 0.5, 0.9])
def test_cyclics_peak_lies_where_it_is_asked_for(peak: float) -> None:
    wanted = 0.2 * np.interp(np.arange(40), [0, peak * 40, 40], [0 if peak else 1, 1, 0])
    np.testing.assert_allclose(schedules.build("cyclic", optimizer(), 40, peak=peak).rates[:-1], wanted, atol=1e-15)


def test_cyclic_is_torchs() -> None:
    theirs = CyclicLR(optimizer(), 0.0, 0.2, step_size_up=20, step_size_down=20, cycle_momentum=False)
    ours = schedules.build("cyclic", optimizer(), 40)
    np.testing.assert_allclose(ours.rates[:40], rates(theirs, 40), rtol=0, atol=1e-15)


def test_cyclic_ends_at_zero_and_stays() -> None:
    assert [schedules.cyclic(update, 4) for update in range(6)] == [0, 0.5, 1, 0.5, 0, 0]


def test_multistep_is_torchs() -> None:
    theirs = MultiStepLR(optimizer(), milestones=[20, 30], gamma=0.1)
    ours = schedules.build("multistep", optimizer(), 40)
    np.testing.assert_allclose(ours.rates[:40], rates(theirs, 40), rtol=1e-12)


def test_multistep_of_an_odd_number_steps_at_the_first_update_behind() -> None:
    factors = [schedules.multistep(update, 7) for update in range(7)]
    assert factors == [1, 1, 1, 1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_optimizers_rate_is_torchs_rounded_once_and_the_last_one_stays(name: str, device: str) -> None:
    theirs = LambdaLR(optimizer(), lambda update: schedules.SCHEDULES[name](update, 7))
    sgd = SGD([torch.zeros(1, requires_grad=True, device=device)], lr=0.2)
    ours = schedules.build(name, sgd, 7)
    rate = sgd.param_groups[0]["lr"]
    assert (rate.shape, rate.dtype, rate.device.type) == ((), torch.float32, device)
    for update, wanted in enumerate(rates(theirs, 10)):
        assert sgd.param_groups[0]["lr"] is rate
        assert rate.item() == np.float32(wanted)
        assert ours.rates[ours.update.item()] == wanted == ours.rates[min(update, 7)]
        ours.step()


def test_a_loaded_state_goes_on_in_the_same_tensors(device: str) -> None:
    def start() -> tuple[ak.MasterSGD, schedules.Scheduler]:
        optimizer = ak.MasterSGD([torch.zeros(1, requires_grad=True, device=device)], lr=0.2)
        return optimizer, schedules.build("cyclic", optimizer, 8)

    (saved, before), (optimizer, scheduler) = start(), start()
    for _ in range(3):
        before.step()
    addresses = [tensor.data_ptr() for tensor in scheduler.tensors]
    optimizer.load_state_dict(saved.state_dict())
    scheduler.load_state_dict(before.state_dict())
    before.step()  # moves no copy
    assert [tensor.data_ptr() for tensor in scheduler.tensors] == addresses
    assert optimizer.param_groups[0]["lr"].data_ptr() == addresses[-1]
    assert optimizer.param_groups[0]["lr"].item() == np.float32(0.2 * 0.75)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"].item() == np.float32(0.2)


def test_a_scheduler_refuses_several_groups() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)]
    with pytest.raises(ValueError, match="wanted one parameter group and at least one rate, got 2 and 1"):
        schedules.Scheduler(SGD(groups, lr=0.2), [0.2])
