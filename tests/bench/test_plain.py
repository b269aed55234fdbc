"""The plain loop against the report's algorithms: the same batches, noise and torch.optim.SGD, the same bits."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from report_loops import Threat, train_fast, train_free, train_pgd, train_standard
from torch import Tensor

from freefast import TrainConfig, models
from freefast.bench.plain import HostImages, PlainLoop, loader
from freefast.data import CIFAR10_MEAN, CIFAR10_STD, ImageData, Split
from freefast.training import setup

BATCH, BATCHES, REPLAYS, STEPS, LR = 6, 8, 2, 2, 0.1
OWN: dict[str, dict[str, Any]] = {
    "standard": {},
    "free": {"replays": REPLAYS},
    "fast": {"alpha": 10 / 255},
    "pgd": {"alpha": 2 / 255, "pgd_steps": STEPS},
}


def make_data(samples: int = BATCH * BATCHES, size: int = 12) -> ImageData:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (samples, 3, size, size), dtype=torch.uint8, generator=random)
    split = Split(images=images, labels=torch.randint(0, 10, (samples,), generator=random))
    classes = tuple(map(str, range(10)))
    return ImageData(name="noise", classes=classes, mean=CIFAR10_MEAN, std=CIFAR10_STD, train=split, test=split)


def make_config(method: str, **settings: Any) -> TrainConfig:
    return TrainConfig(
        method=method, dataset="cifar10", lr_max=LR, batch_size=BATCH, device="cpu", **OWN[method], **settings
    )


class TorchNoise(Threat):
    """The start from torch's generator."""

    def random(self, x: Tensor, seed: int, draw: int) -> Tensor:
        start = (2 * torch.rand_like(x) - 1) * self.epsilon
        return torch.max(torch.min(start, self.upper - x), self.lower - x)


@pytest.mark.parametrize("method", OWN)
def test_same_bits_as_the_report(method: str, one_thread: None) -> None:
    data, config = make_data(), make_config(method)
    updates = BATCHES * config.updates_per_batch
    torch.manual_seed(3)
    model = models.build("small_cnn", 10, 3, width=4).train()
    plain, start = copy.deepcopy(model), copy.deepcopy(model)
    images = HostImages(data, augment=False).images
    batches = list(zip(images.split(BATCH), data.train.labels.split(BATCH), strict=True))

    loop = PlainLoop(config, model, setup.make_threat(config, data), updates, half=None)
    torch.manual_seed(5)
    for x, y in batches:
        loop.step(x, y)
    torch.manual_seed(5)
    delta = run_report(method, plain, batches, updates)

    for one, other, before in zip(model.parameters(), plain.parameters(), start.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, before)
    if method == "free":
        assert loop.delta is not None
        assert torch.equal(loop.delta, delta)


def run_report(method: str, model: torch.nn.Module, batches: list, updates: int) -> Tensor | None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)

    def update(lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    threat = TorchNoise(8 / 255, CIFAR10_MEAN, CIFAR10_STD, "cpu")
    rates = [LR * float(np.interp(index, [0, updates / 2, updates], [0, 1, 0])) for index in range(updates)]
    match method:
        case "free":
            return train_free(model, batches, rates, update, threat, replays=REPLAYS, batch_size=BATCH)
        case "pgd":
            return train_pgd(model, batches, rates, update, threat, alpha=2 / 255, steps=STEPS, seed=0)
        case "fast":
            return train_fast(
                model, batches, rates, update, threat, alpha=10 / 255, delta_init="random", batch_size=BATCH, seed=0
            )
    return train_standard(model, batches, rates, update)


def test_images_are_crops_of_the_padded_image_flipped_or_not() -> None:
    data = make_data(samples=3)
    images = HostImages(data, augment=True)
    mean, std = (np.array(row, np.float32).reshape(3, 1, 1) for row in (CIFAR10_MEAN, CIFAR10_STD))
    seen = set()
    for index in range(3):
        pixels = data.train.images[index].numpy().astype(np.float32) / 255
        padded = (np.pad(pixels, ((0, 0), (4, 4), (4, 4))) - mean) / std
        for _ in range(60):
            image, label = images[index]
            assert label == data.train.labels[index]
            found = [
                (top, left, flip)
                for top in range(9) for left in range(9) for flip in (False, True)
                if np.allclose(image.flip(-1) if flip else image, padded[:, top : top + 12, left : left + 12])
            ]  # fmt: skip
            assert len(found) == 1
            seen.update(found)
    assert {flip for _, _, flip in seen} == {False, True}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))


def test_loader_gives_whole_shuffled_batches_of_all_samples() -> None:
    data = make_data(samples=2 * BATCH + 1)
    batches = list(loader(data, make_config("fast", augment=False)))
    assert [tuple(images.shape) for images, _ in batches] == [(BATCH, 3, 12, 12)] * 2
    images = torch.cat([images for images, _ in batches])
    places = [int((HostImages(data, False).images == image).flatten(1).all(1).nonzero()) for image in images]
    assert len(set(places)) == 2 * BATCH
    assert torch.cat([labels for _, labels in batches]).tolist() == data.train.labels[places].tolist()
