"""A small convolutional network for small images such as 8x8 digits."""

from torch import Tensor, nn


def small_cnn(*, num_classes: int, channels: int = 1, width: int = 16) -> nn.Module:
    """Three 3x3 convolutions with BatchNorm, the last two of stride 2, and a linear layer.

    num_classes: outputs
    channels: of the images
    width: channels of the first convolution; the others have 2 and 4 times as many
    """
    return SmallCNN(num_classes, channels, width)


class SmallCNN(nn.Module):
    """Three convolutions, global average pool, linear."""

    def __init__(self, num_classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(channels, width, stride=1),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 4 * width, stride=2),
        )
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns: (N, num_classes) logits."""
        return self.linear(self.features(x).mean((2, 3)))


def _block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
