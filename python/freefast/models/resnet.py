"""torchvision's ResNet50: as the report ran it, and with a stem for small images."""

from typing import Any

from torch import nn

from freefast.errors import UserError


def resnet50(*, num_classes: int, channels: int = 3, width: int = 64) -> nn.Module:
    """torchvision's `resnet50()` as it is: ImageNet stem, 1000 outputs, the classes being the first of them.

    num_classes: of the data, at most 1000
    channels: of the images, 3
    width: channels inside the blocks of the first stage, torchvision's `width_per_group`

    Raises: UserError where the data has more classes or other channels than the network.
    Source: He et al. 2016, "Deep residual learning for image recognition", table 1.
    """
    if num_classes > 1000 or channels != 3:
        raise UserError(
            "model resnet50: wanted at most 1000 classes and images of 3 channels (resnet50_cifar takes any), "
            f"got {num_classes} classes and {channels} channels"
        )
    return _resnet50(width_per_group=width)


def resnet50_cifar(*, num_classes: int, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet50 for small images: a 3x3 stem of stride 1, no max-pool.

    num_classes: outputs
    channels: of the images
    width: channels inside the blocks of the first stage, torchvision's `width_per_group`
    """
    model = _resnet50(num_classes=num_classes, width_per_group=width)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _resnet50(**options: Any) -> Any:
    import torchvision  # takes seconds

    return torchvision.models.resnet50(**options)
