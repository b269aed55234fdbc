"""Random images that a small model can tell apart, made in milliseconds."""

import torch
from torch import Tensor

from freefast.data.dataset import ImageData, Split
from freefast.data.normalization import normalization
from freefast.data.seeding import generator

CLASSES = 10
TRAIN_SAMPLES = 600
TEST_SAMPLES = 200
NOISE = 0.1


def load(image_size: tuple[int, int], seed: int) -> ImageData:
    """600 training and 200 test colour images in 10 classes of equal size.

    A class is a random 4x4 pattern blown up to `image_size`; an image adds Gaussian noise of std 0.1 in pixel
    units. Mean 0 and std 1: model units are pixel units.
    """
    random = generator(seed)
    patterns = torch.rand(CLASSES, 3, 4, 4, generator=random)
    patterns = torch.nn.functional.interpolate(patterns, size=image_size, mode="bilinear")
    mean, std = normalization("fake", 3)
    return ImageData(
        name="fake",
        classes=tuple(f"class{index}" for index in range(CLASSES)),
        mean=mean,
        std=std,
        train=_split(patterns, TRAIN_SAMPLES, random),
        test=_split(patterns, TEST_SAMPLES, random),
    )


def _split(patterns: Tensor, samples: int, random: torch.Generator) -> Split:
    labels = torch.arange(samples) % CLASSES
    images = patterns[labels]
    images += NOISE * torch.randn(images.shape, generator=random)
    return Split(images=(images.clamp(0, 1) * 255).round().to(torch.uint8), labels=labels)
