"""PreActResNet18 for small images, the report's first model."""

import torch.nn.functional as F
from torch import Tensor, nn

from freefast.errors import UserError

_BLOCKS = 2
_STRIDES = (1, 2, 2, 2)
_LEAST_WIDTH = 8


def preactresnet18(*, num_classes: int, channels: int = 3, width: int = 64) -> nn.Module:
    """PreActResNet18 with a 3x3 stem.

    num_classes: outputs
    channels: of the images
    width: channels of the first stage, at least 8; the others have 2, 4 and 8 times as many

    Raises: UserError where width is below 8.
    Source: He et al. 2016, "Identity mappings in deep residual networks", figure 4(e), with the shortcut as in
        Wong et al. 2020: the projection takes the block's raw input.
    """
    if width < _LEAST_WIDTH:
        raise UserError(
            f"model preactresnet18: width: wanted at least {_LEAST_WIDTH}, torch's CPU convolutions crash on narrower "
            f"projections in channels-last memory format, got {width}"
        )
    return PreActResNet(num_classes, channels, width)


class PreActResNet(nn.Module):
    """Stem without BatchNorm, four stages of two blocks, BatchNorm, ReLU, global average pool, linear."""

    def __init__(self, num_classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks = []
        inputs = width
        for stage, stride in enumerate(_STRIDES):
            outputs = width * 2**stage
            for block in range(_BLOCKS):
                blocks.append(PreActBlock(inputs, outputs, stride if block == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns: (N, num_classes) logits."""
        features = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.linear(features.mean((2, 3)))


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, plus the raw input, projected where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns: (N, outputs, H / stride, W / stride)."""
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + self.shortcut(x)
