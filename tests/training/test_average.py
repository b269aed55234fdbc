"""The average of weights against a float64 loop."""

import pytest
import torch
from steps import make_loader, make_state, make_step

from freefast import Precision

DECAY = 0.9
POLICIES = [Precision(), Precision(name="half-bf16"), Precision(name="half-bf16", master_weights=False)]


@pytest.mark.parametrize(
    ("method", "precision"), [*zip(["free", "fast random", "free"], POLICIES, strict=True)], ids=str
)
def test_every_update_counts_with_the_decays_powers(method: str, precision: Precision, device: str) -> None:
    """Float32 rounds every step by a few 2^-24 of the values; such errors add up as a geometric series."""
    state, step = make_state(device, precision, weight_average=DECAY), make_step(method)

    def values() -> dict[str, torch.Tensor]:
        named = dict(state.model.named_parameters())
        found = {name: value for name, value in state.model.state_dict().items() if value.is_floating_point()}
        masters = {name: state.optimizer.state[value].get("master") for name, value in named.items()}
        found |= {name: master for name, master in masters.items() if master is not None and master.numel()}
        return {name: value.detach().double().clone() for name, value in found.items()}

    wanted = values()
    largest = {name: value.abs().max().item() for name, value in wanted.items()}
    update = state.update

    def update_and_average() -> None:
        update()
        for name, value in values().items():
            wanted[name] = DECAY * wanted[name] + (1 - DECAY) * value
            largest[name] = max(largest[name], value.abs().max().item())

    state.update = update_and_average  # type: ignore[method-assign]
    for batch in make_loader().epoch(0):
        step(state, batch.images.to(device), batch.labels.to(device))
    averages = state.average.state_dict()
    assert averages.keys() == wanted.keys()
    for name, average in averages.items():
        assert average.dtype == torch.float32
        tolerance = 4 * 2**-24 / (1 - DECAY) * largest[name]
        torch.testing.assert_close(average.double(), wanted[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("precision", POLICIES, ids=str)
def test_the_averaged_model_has_the_averages_in_its_own_dtypes(precision: Precision, device: str) -> None:
    state = make_state(device, precision, weight_average=DECAY)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for batch in make_loader().epoch(0):
        make_step("fast random")(state, batch.images.to(device), batch.labels.to(device))
    model, averages = state.final_model(), state.average.state_dict()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        own = state.model.state_dict()[name]
        assert value.dtype == own.dtype
        assert value.data_ptr() != own.data_ptr()
        assert torch.equal(value, averages[name].to(own.dtype) if name in averages else own)
    assert not torch.equal(model.linear.weight, state.model.linear.weight)
    assert not torch.equal(model.linear.weight, before["linear.weight"])


def test_without_one_the_model_itself_is_the_final_one(device: str) -> None:
    state = make_state(device)
    assert state.average is None
    assert state.final_model() is state.model
