"""Sizes and structure of the classifiers."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from freefast import UserError, models
from freefast.models.preactresnet import PreActBlock


def conv(inputs: int, outputs: int, size: int) -> int:
    return inputs * outputs * size * size


def preact_blocks(widths: list[int], blocks: int) -> int:
    """Weights of stages of pre-activation blocks; widths[0] is the stem's."""
    total, inputs = 0, widths[0]
    for stage, outputs in enumerate(widths[1:]):
        for block in range(blocks):
            total += 2 * inputs + conv(inputs, outputs, 3) + 2 * outputs + conv(outputs, outputs, 3)
            projected = inputs != outputs or (stage > 0 and block == 0)
            total += conv(inputs, outputs, 1) if projected else 0
            inputs = outputs
    return total


def count(name: str, *arguments: int, **options: int) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in models.build(name, *arguments, **options).parameters())


def test_preactresnet18_has_its_weights() -> None:
    wanted = conv(3, 64, 3) + preact_blocks([64, 64, 128, 256, 512], 2) + 2 * 512 + 512 * 10 + 10
    assert count("preactresnet18", 10) == wanted == 11_172_170


def test_wideresnet_28_10_has_its_weights() -> None:
    wanted = conv(3, 16, 3) + preact_blocks([16, 160, 320, 640], 4) + 2 * 640 + 640 * 10 + 10
    assert count("wideresnet", 10) == wanted == 36_479_194


def test_wideresnet_takes_depth_and_widening() -> None:
    wanted = conv(1, 16, 3) + preact_blocks([16, 32, 64, 128], 2) + 2 * 128 + 128 * 7 + 7
    assert count("wideresnet", 7, 1, depth=16, widen_factor=2) == wanted


def test_resnet50_is_torchvisions() -> None:
    assert count("resnet50", 10) == 25_557_032
    with torch.device("meta"):
        assert str(models.build("resnet50", 10)) == str(torchvision.models.resnet50())


def test_a_narrow_resnet50_differs_in_the_3x3_convolutions_and_their_neighbours() -> None:
    with torch.device("meta"):
        narrow, own = (dict(models.build("resnet50", 10, width=width).named_modules()) for width in (16, 64))
    assert narrow.keys() == own.keys()
    for name, module in narrow.items():
        if isinstance(module, nn.Conv2d):
            inside = 1 if "downsample" in name or name == "conv1" else 4  # a quarter of 64
            inputs = 1 if name.endswith("conv1") else inside
            outputs = 1 if name.endswith("conv3") else inside
            assert (module.in_channels * inputs, module.out_channels * outputs) == (
                own[name].in_channels, own[name].out_channels,
            )  # fmt: skip


def test_resnet50_cifar_keeps_the_resolution() -> None:
    wanted = 25_557_032 - conv(3, 64, 7) + conv(3, 64, 3) - 2049 * 1000 + 2049 * 10
    assert count("resnet50_cifar", 10) == wanted
    with torch.device("meta"):
        model = models.build("resnet50_cifar", 10)
        assert model.layer1(model.maxpool(model.conv1(torch.empty(1, 3, 32, 32)))).shape == (1, 256, 32, 32)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("preactresnet18", {"width": 8}, 8),
        ("preactresnet18", {"width": 8}, 32),
        ("small_cnn", {}, 8),
        ("small_cnn", {"width": 3}, 9),
        ("wideresnet", {"depth": 10, "widen_factor": 1}, 8),
        ("resnet50_cifar", {}, 8),
        ("resnet50_cifar", {"width": 8}, 8),
    ],
)
def test_logits_have_one_number_a_class(name: str, options: dict[str, int], size: int, device: str) -> None:
    model = models.build(name, 7, 2, **options).to(device).eval()
    with torch.no_grad():
        assert model(torch.rand(3, 2, size, size, device=device)).shape == (3, 7)


def test_preact_shortcut_takes_the_raw_input(device: str, float32_convolutions: None) -> None:
    block = PreActBlock(2, 3, stride=2).to(device).eval()
    for norm in (block.norm1, block.norm2):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.bias)
    x = torch.randn(2, 2, 6, 6, device=device)

    def active(norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
        return F.relu(F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False))

    y = F.conv2d(active(block.norm1, x), block.conv1.weight, stride=2, padding=1)
    y = F.conv2d(active(block.norm2, y), block.conv2.weight, padding=1)
    with torch.no_grad():
        branch, shortcut = block(x, None)
    torch.testing.assert_close(branch, y)
    torch.testing.assert_close(shortcut, F.conv2d(x, block.shortcut.weight, stride=2))


@pytest.mark.parametrize(("name", "options"), [("preactresnet18", {"width": 8}), ("wideresnet", {"depth": 10})])
def test_converted_norms_are_refused(name: str, options: dict[str, int]) -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(models.build(name, 10, **options)).eval()
    with pytest.raises(UserError, match=r"wanted BatchNormReLU, .* got SyncBatchNorm; build the model again"):
        model(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "channels", "options", "message"),
    [
        ("lenet", 3, {}, "preactresnet18, resnet50, resnet50_cifar, wideresnet, small_cnn, got 'lenet'"),
        ("small_cnn", 3, {"depth": 3}, "small_cnn: depth: wanted one of width"),
        ("resnet50", 3, {"depth": 3}, "resnet50: depth: wanted one of width"),
        ("resnet50", 1, {}, "3 channels"),
        ("preactresnet18", 3, {"width": 7}, "width: wanted at least 8, .* got 7"),
        ("wideresnet", 3, {"depth": 12}, "depth: wanted 6 n \\+ 4"),
        ("wideresnet", 3, {"widen_factor": 0}, "widen_factor"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, channels: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.build(name, 10, channels, **options)
