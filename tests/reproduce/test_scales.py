"""What is said of a reproduction's scale and data."""

from typing import get_args

import pytest

from freefast.config import TrainConfig
from freefast.data import DatasetName
from freefast.reproduce.scales import SCALES, described

INSTEAD = {
    "cifar10": "",
    "digits": "digits in the place of CIFAR-10, resnet50_cifar of ResNet50, ",
    "imagefolder": "images of a folder in the place of CIFAR-10, ",
    "fake": "made-up images in the place of CIFAR-10, ",
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dataset", get_args(DatasetName))
def test_what_takes_the_place_of_the_reports_data_is_named(dataset: str, scale: str) -> None:
    said = described(scale, TrainConfig(method="fast", dataset=dataset, limit_train=96, limit_test=64))
    assert INSTEAD[dataset] in said
    assert ("in the place of CIFAR-10" in said) == (dataset != "cifar10")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dataset", get_args(DatasetName))
def test_names_that_are_not_of_the_settings_are_told_of(dataset: str, scale: str) -> None:
    """All that is shrunk, and digits, whose epsilon, alpha and networks are others."""
    said = described(scale, TrainConfig(method="fast", dataset=dataset, limit_train=96, limit_test=64))
    assert ("Names of runs are those of the report's recipes" in said) == (scale != "full" or dataset == "digits")
