"""PreActResNet18 for small images, the report's first model."""

from torch import Tensor, nn

from freefast.errors import UserError
from freefast.models.norm import BatchNormReLU, require_relu

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
        self.norm = BatchNormReLU(inputs)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns: (N, num_classes) logits."""
        require_relu(self.norm)
        features, _ = self.norm.add(*run(self.blocks, self.stem(x)))
        return self.linear(features.mean((2, 3)))


def run(blocks: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """The last block's branch and shortcut; a sum of both is left to the BatchNorm behind it."""
    branch, shortcut = x, None
    for block in blocks:
        branch, shortcut = block(branch, shortcut)
    assert shortcut is not None
    return branch, shortcut


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, and beside it the raw input, projected where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = BatchNormReLU(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = BatchNormReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, branch: Tensor, shortcut: Tensor | None) -> tuple[Tensor, Tensor]:
        """The block of branch + shortcut, not yet summed itself.

        branch, shortcut: (N, inputs, H, W). Returns: two of (N, outputs, H / stride, W / stride).
        Raises: UserError where its BatchNorms were converted to another kind.
        """
        require_relu(self.norm1, self.norm2)
        active, x = (self.norm1(branch), branch) if shortcut is None else self.norm1.add(branch, shortcut)
        return self.conv2(self.norm2(self.conv1(active))), self.project(x, active)

    def project(self, x: Tensor, active: Tensor) -> Tensor:
        """The shortcut of the raw input x; active is relu(batch_norm(x))."""
        return self.shortcut(x)
