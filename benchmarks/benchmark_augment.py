"""augment of a CIFAR-10 batch against padding, cropping, flipping and normalising in eager PyTorch."""

import torch
from comparison import Comparison

import advkernels as ak

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
SAMPLES, BATCH, PADDING = 10000, 128, 4


def eager(
    images: torch.Tensor, shift: torch.Tensor, flip: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    """Every step of the augmentation on the whole batch; shift: (2, N), first row and column of the crops."""
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, [PADDING] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(len(images), device=images.device), :, shift[0], shift[1]]
    mirrored = torch.where(flip.view(-1, 1, 1, 1), cropped.flip(-1), cropped)
    return mirrored.to(torch.float32).div_(255).sub_(mean).div_(std)


def benchmark_augment(compare: Comparison) -> None:
    images = torch.randint(0, 256, (SAMPLES, 3, 32, 32), dtype=torch.uint8)
    index, rng = torch.randperm(SAMPLES)[:BATCH], ak.PhiloxState(0)
    shift, flip = torch.randint(0, 2 * PADDING + 1, (2, BATCH)), torch.rand(BATCH) < 0.5
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    with ak.backend("reference"):
        expected = ak.augment(images, index, MEAN, STD, rng=rng)
    assert torch.equal(ak.augment(images, index, MEAN, STD, rng=rng), expected)
    contenders = {
        "advkernels": lambda: ak.augment(images, index, MEAN, STD, rng=rng),
        "eager": lambda: eager(images[index], shift, flip, mean, std),
    }
    compare(contenders, {"eager": 5.0}, rounds=100, calls=3)
