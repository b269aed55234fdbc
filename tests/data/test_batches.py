"""Batches on the device, gathered there or staged by the host, against `Loader`'s."""

from pathlib import Path

import pytest
import torch

from freefast import data
from freefast.data import Loader, Split
from freefast.data.device import DeviceBatches, fits
from freefast.data.seeding import generator
from freefast.data.staged import StagedBatches

SETTINGS = {"mean": data.CIFAR10_MEAN, "std": data.CIFAR10_STD, "batch_size": 16, "seed": 5}


def random_split(samples: int = 50) -> Split:
    random = generator(samples)
    images = torch.randint(0, 256, (samples, 3, 9, 8), dtype=torch.uint8, generator=random)
    return Split(images=images, labels=torch.randint(0, 10, (samples,), generator=random))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("augment", [False, True])
def test_batches_on_the_device_are_the_loaders(shuffle: bool, augment: bool, device: str, backend: str) -> None:
    split, settings = random_split(), SETTINGS | {"shuffle": shuffle, "augment": augment}
    loader = Loader(split, **settings)
    batches = DeviceBatches(loader, torch.device(device))
    addresses = [tensor.data_ptr() for tensor in batches.tensors]
    assert len(batches) == len(loader) == 4
    for epoch in (0, 1, 0):
        for count, wanted in zip(batches.epoch(epoch), loader.epoch(epoch), strict=True):
            images, labels = batches.read(count)
            assert torch.equal(images.cpu(), wanted.images)
            assert torch.equal(labels.cpu(), wanted.labels)
            assert images.stride() == wanted.images.stride()
            assert images.is_contiguous(memory_format=torch.channels_last)
    assert [tensor.data_ptr() for tensor in batches.tensors] == addresses


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_of_some_rows_no_other_is_read(shuffle: bool, num_workers: int, device: str) -> None:
    """The batches of a split of these rows alone, where nothing is augmented."""
    split, rows = random_split(), torch.arange(3, 50, 2)
    alone = Split(images=split.images[rows], labels=split.labels[rows])
    settings = SETTINGS | {"shuffle": shuffle, "augment": False}
    wanted = list(Loader(alone, **settings).epoch(2))
    loader = Loader(split, **settings, rows=rows, num_workers=num_workers)
    assert len(loader) == len(wanted) == 2
    for batch, expected in zip(loader.epoch(2), wanted, strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(batch.positions, rows[expected.positions])
    if num_workers == 0:
        batches = DeviceBatches(loader, torch.device(device))
        for count, expected in zip(batches.epoch(2), wanted, strict=True):
            assert torch.equal(batches.read(count)[0].cpu(), expected.images)
        assert torch.equal(loader.order(2).sort().values, rows)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_staged_batches_are_the_loaders_at_one_address(num_workers: int, device: str, tree: Path) -> None:
    split = data.load("imagefolder", root=tree).train
    settings = SETTINGS | {"batch_size": 4, "shuffle": True, "augment": True}
    loader = Loader(split, **settings)
    staged = StagedBatches(
        Loader(split, **settings, num_workers=num_workers, pin=device == "cuda"), torch.device(device)
    )
    assert len(staged) == len(loader)
    for count, wanted in zip(staged.epoch(1), loader.epoch(1), strict=True):
        images, labels = staged.read(count)
        assert torch.equal(images.cpu(), wanted.images)
        assert torch.equal(labels.cpu(), wanted.labels)
        assert [images.data_ptr(), labels.data_ptr()] == [tensor.data_ptr() for tensor in staged.tensors]


def test_a_cursor_that_only_the_device_knows_finds_the_batch(device: str) -> None:
    """What is read next hangs on no number of the host's but the size."""
    split = random_split()
    batches = DeviceBatches(Loader(split, **SETTINGS, shuffle=False, augment=False), torch.device(device))
    sizes = batches.epoch(0)
    next(sizes)
    seen = torch.cat([batches.read(count)[1] for count in (7, 1, 16)])
    assert torch.equal(seen.cpu(), split.labels[:24])


@pytest.mark.gpu
def test_images_fit_a_quarter_of_the_free_memory() -> None:
    free, _ = torch.cuda.mem_get_info()
    for share, wanted in ((0.2, True), (0.3, False)):
        pixels = torch.zeros(1, dtype=torch.uint8).expand(int(free * share) // 1024, 1, 32, 32)
        split = Split(images=pixels, labels=torch.zeros(len(pixels), dtype=torch.int64))
        assert fits(split, torch.device("cuda")) is wanted
