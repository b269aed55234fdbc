from pathlib import Path

import numpy as np
import plain
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image, to_tensor

import advkernels as ak
from freefast import data
from freefast.data import Batch, Loader, Split
from freefast.data.seeding import generator


def random_split(samples: int) -> Split:
    random = generator(samples)
    images = torch.randint(0, 256, (samples, 3, 9, 8), dtype=torch.uint8, generator=random)
    return Split(images=images, labels=torch.randint(0, 10, (samples,), generator=random))


def make(split: Split, **changes: object) -> Loader:
    arguments = {
        "mean": data.CIFAR10_MEAN,
        "std": data.CIFAR10_STD,
        "batch_size": 16,
        "shuffle": True,
        "augment": True,
        "seed": 0,
    }
    return Loader(split, **arguments | changes)  # type: ignore[arg-type]


def by_position(loader: Loader, epoch: int) -> torch.Tensor:
    batches = list(loader.epoch(epoch))
    order = torch.cat([batch.positions for batch in batches]).argsort()
    return torch.cat([batch.images for batch in batches])[order]


def order(loader: Loader, epoch: int) -> list[int]:
    return torch.cat([batch.positions for batch in loader.epoch(epoch)]).tolist()


def test_normalisation_is_torchvisions() -> None:
    split = random_split(20)
    normalise = transforms.Normalize(data.CIFAR10_MEAN, data.CIFAR10_STD)
    wanted = torch.stack([normalise(to_tensor(to_pil_image(image))) for image in split.images])
    (batch,) = make(split, batch_size=20, shuffle=False, augment=False).epoch(0)
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images, wanted)
    assert torch.equal(batch.labels, split.labels)


@given(samples=st.integers(1, 60), batch_size=st.integers(1, 70), shuffle=st.booleans())
def test_every_sample_once_and_the_last_batch_partial(samples: int, batch_size: int, shuffle: bool) -> None:
    split = random_split(samples)
    loader = make(split, batch_size=batch_size, shuffle=shuffle)
    batches = list(loader.epoch(samples))
    assert len(loader) == len(batches) == (samples + batch_size - 1) // batch_size
    assert all(len(batch.labels) == batch_size for batch in batches[:-1])
    assert sorted(torch.cat([batch.positions for batch in batches]).tolist()) == list(range(samples))
    for batch in batches:
        assert torch.equal(batch.labels, split.labels[batch.positions])
        assert len(batch.images) == len(batch.positions)


def test_order_follows_seed_and_epoch() -> None:
    split = random_split(100)
    assert order(make(split), 4) == order(make(split), 4)
    assert order(make(split), 4) != order(make(split), 5)
    assert order(make(split), 4) != order(make(split, seed=1), 4)
    assert order(make(split, shuffle=False), 4) == list(range(100))


@pytest.mark.parametrize("augment", [False, True])
def test_workers_change_nothing(tree: Path, augment: bool) -> None:
    split = data.load("imagefolder", root=tree).train
    for epoch in (0, 1):
        loaders = (make(split, batch_size=4, augment=augment, num_workers=workers) for workers in (0, 2))
        alone, helped = (loader.epoch(epoch) for loader in loaders)
        for mine, theirs in zip(alone, helped, strict=True):
            assert isinstance(theirs, Batch)
            assert all(torch.equal(left, right) for left, right in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_random_state_is_left_alone(num_workers: int) -> None:
    before = torch.get_rng_state()
    list(make(random_split(30), num_workers=num_workers).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_belongs_to_the_sample() -> None:
    split = random_split(50)
    images = by_position(make(split), 3)
    assert torch.equal(images, by_position(make(split, batch_size=7), 3))
    assert torch.equal(images, by_position(make(split, shuffle=False), 3))
    assert not torch.equal(images, by_position(make(split), 4))
    assert not torch.equal(images, by_position(make(split, seed=1), 3))


def augmentation_seed(seed: int) -> int:
    return int(np.random.SeedSequence((seed, 0, 1)).generate_state(1, np.uint64)[0]) >> 1


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 2), (2**40, 2**33)])
def test_augmented_images_are_crops_and_flips_of_the_sample(seed: int, epoch: int) -> None:
    split = random_split(50)
    mean, std = torch.tensor(data.CIFAR10_MEAN), torch.tensor(data.CIFAR10_STD)
    wanted = plain.augment(split.images, torch.arange(50), mean, std, augmentation_seed(seed), epoch, 4, True)
    assert torch.equal(by_position(make(split, seed=seed), epoch), wanted)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_augmentation_does_not_draw_what_attacks_draw(seed: int) -> None:
    """Training's noise is of the run's seed."""
    state = make(random_split(4), seed=seed).random_state()
    assert state is not None
    assert state.seed != seed


def test_a_backend_of_the_device_does_not_hinder_the_host() -> None:
    split = random_split(20)
    wanted = by_position(make(split), 1)
    with ak.backend("triton"):
        assert torch.equal(by_position(make(split), 1), wanted)
        assert torch.equal(by_position(make(split, num_workers=1), 1), wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: wanted at least 1, got 0"),
        ({"seed": -1}, "seed and num_workers at least 0, got -1 and 0"),
        ({"num_workers": -2}, "seed and num_workers at least 0, got 0 and -2"),
        ({"mean": (0.5,)}, "mean: wanted 3 numbers, one for each channel, got 1"),
    ],
)
def test_bad_argument_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(random_split(4), **changes)
