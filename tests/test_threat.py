"""Pixel units in, model units out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import Normalize

from freefast import ThreatModel
from freefast.data import CIFAR10_MEAN, CIFAR10_STD

EPSILON = 8 / 255


@pytest.fixture
def threat() -> ThreatModel:
    return ThreatModel(epsilon=EPSILON, mean=CIFAR10_MEAN, std=CIFAR10_STD)


def test_bounds_are_the_float32_numbers_of_plain_pytorch(threat: ThreatModel) -> None:
    mean, std = torch.tensor(CIFAR10_MEAN), torch.tensor(CIFAR10_STD)
    assert threat.lower == tuple(((0 - mean) / std).tolist())
    assert threat.upper == tuple(((1 - mean) / std).tolist())
    assert threat.model_epsilon == tuple((EPSILON / std).tolist())
    assert threat.step(2 / 255) == tuple(((2 / 255) / std).tolist())


@given(size=st.floats(0, 1), std=st.floats(1e-3, 10), mean=st.floats(0, 1))
def test_bounds_are_plain_pytorchs_for_any_normalisation(size: float, std: float, mean: float) -> None:
    threat = ThreatModel(epsilon=size, mean=(mean,), std=(std,))
    tensor = torch.tensor([std])
    assert threat.model_epsilon == tuple((size / tensor).tolist())
    assert threat.lower == tuple(((0 - torch.tensor([mean])) / tensor).tolist())
    assert threat.upper == tuple(((1 - torch.tensor([mean])) / tensor).tolist())


def test_without_normalisation_model_units_are_pixel_units() -> None:
    threat = ThreatModel(epsilon=0.25)
    assert (threat.model_epsilon, threat.lower, threat.upper) == ((0.25,), (0.0,), (1.0,))


def test_normalize_is_torchvisions(threat: ThreatModel, device: str) -> None:
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).to(device)
    normalized = threat.normalize(images)
    torch.testing.assert_close(normalized, Normalize(CIFAR10_MEAN, CIFAR10_STD)(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(threat.denormalize(normalized), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"epsilon": 0.1, "mean": (0.5, 0.5)}, "std"),
        ({"epsilon": 0.1, "mean": (), "std": ()}, "std"),
        ({"epsilon": 0.1, "std": (0.0,)}, "std"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"ThreatModel: {message}"):
        ThreatModel(**settings)
