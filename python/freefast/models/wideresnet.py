"""WideResNet, the model of Madry et al. 2017 and Shafahi et al. 2019."""

from torch import Tensor, nn

from freefast.errors import UserError
from freefast.models.norm import BatchNormReLU, require_relu
from freefast.models.preactresnet import PreActBlock, run

_STEM = 16


def wideresnet(*, num_classes: int, channels: int = 3, depth: int = 28, widen_factor: int = 10) -> nn.Module:
    """WRN-depth-widen_factor with basic blocks, without dropout.

    num_classes: outputs
    channels: of the images
    depth: convolution layers, 6 n + 4
    widen_factor: width of the three stages in units of 16, 32 and 64

    Raises: UserError where depth is not 6 n + 4 or widen_factor is below 1.
    Source: Zagoruyko and Komodakis 2016, "Wide residual networks", table 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UserError(f"model wideresnet: depth: wanted 6 n + 4, at least 10, got {depth}")
    if widen_factor < 1:
        raise UserError(f"model wideresnet: widen_factor: wanted at least 1, got {widen_factor}")
    return WideResNet(num_classes, channels, (depth - 4) // 6, widen_factor)


class WideResNet(nn.Module):
    """Stem, three stages of `blocks` pre-activation blocks, BatchNorm, ReLU, global average pool, linear."""

    def __init__(self, num_classes: int, channels: int, blocks: int, widen_factor: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, _STEM, 3, padding=1, bias=False)
        layers = []
        inputs = _STEM
        for stage in range(3):
            outputs = _STEM * 2**stage * widen_factor
            for block in range(blocks):
                layers.append(WideBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.norm = BatchNormReLU(inputs)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns: (N, num_classes) logits."""
        require_relu(self.norm)
        features, _ = self.norm.add(*run(self.blocks, self.stem(x)))
        return self.linear(features.mean((2, 3)))


class WideBlock(PreActBlock):
    """A pre-activation block whose projection takes the pre-activation, as the WideResNet code does."""

    def project(self, x: Tensor, active: Tensor) -> Tensor:
        """The shortcut."""
        return x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
