import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from freefast import data
from freefast.data import ImageData, Split
from freefast.errors import UserError


def test_digits_are_scikit_learns() -> None:
    digits = data.load("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert (digits.channels, digits.image_size, digits.mean, digits.std) == (1, (8, 8), (0.0,), (1.0,))
    assert digits.classes == tuple("0123456789")

    truth = load_digits()
    images = torch.cat([digits.train.images, digits.test.images]).double() * (16 / 255)
    labels = torch.cat([digits.train.labels, digits.test.labels])
    got = np.column_stack([images.flatten(1).round().numpy(), labels.numpy()])
    wanted = np.column_stack([truth.data, truth.target])
    assert sorted(got.tolist()) == sorted(wanted.tolist())


def test_digits_split_is_stratified_and_fixed() -> None:
    first, second = data.load("digits", seed=0), data.load("digits", seed=1)
    assert torch.equal(first.train.images, second.train.images)
    whole = np.bincount(load_digits().target)
    assert np.abs(np.bincount(first.test.labels.numpy()) - whole * 360 / 1797).max() < 1


def test_fake_is_seeded_and_its_classes_can_be_told_apart() -> None:
    fake, again, other = (data.load("fake", image_size=16, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(fake.train.images, again.train.images)
    assert torch.equal(fake.test.images, again.test.images)
    assert not torch.equal(fake.train.images, other.train.images)
    assert fake.train.images.shape == (600, 3, 16, 16)
    assert torch.bincount(fake.test.labels).tolist() == [20] * 10

    train, test = (split.images.float().flatten(1) for split in (fake.train, fake.test))
    means = torch.stack([train[fake.train.labels == label].mean(0) for label in range(10)])
    distances = torch.cdist(test, means)
    assert (distances.argmin(1) == fake.test.labels).float().mean() > 0.95


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    limit=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_limit_is_balanced(sizes: list[int], limit: int, seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    taken = Split(images=images, labels=labels).take(limit, seed)

    positions = taken.images.flatten().long()
    assert len(taken) == min(limit, len(labels))
    assert (positions.diff() > 0).all()
    assert torch.equal(labels[positions], taken.labels)
    counts = torch.bincount(taken.labels, minlength=len(sizes))
    used_up = counts == torch.tensor(sizes)
    assert (used_up | (counts >= counts.max() - 1)).all()


def test_larger_limit_contains_smaller_and_seed_changes_it() -> None:
    digits = data.load("digits").train
    images = [{image.numpy().tobytes() for image in digits.take(limit, 5).images} for limit in (100, 300)]
    assert images[0] < images[1]
    assert not torch.equal(digits.take(100, 5).images, digits.take(100, 6).images)


def test_load_limits_each_split_alone() -> None:
    digits = data.load("digits", limit_train=50, limit_test=5000)
    assert (len(digits.train), len(digits.test)) == (50, 360)
    assert torch.bincount(digits.train.labels).tolist() == [5] * 10


def test_load_takes_normalisation() -> None:
    digits = data.load("digits", mean=[0.5], std=[0.25])
    assert (digits.mean, digits.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "dataset: wanted one of digits, cifar10, imagefolder, fake, got mnist"),
        ({"name": "digits", "limit_train": 0}, "limit_train: wanted at least 1, got 0"),
        ({"name": "digits", "limit_test": -3}, "limit_test: wanted at least 1, got -3"),
        ({"name": "digits", "seed": -1}, "seed: wanted at least 0, got -1"),
        ({"name": "digits", "image_size": 16}, "image_size: digits has a size of its own"),
        ({"name": "fake", "image_size": 0}, "image_size: wanted at least 1 pixel, got 0"),
        ({"name": "digits", "mean": (0.5, 0.5)}, "mean: wanted 1 numbers, one for each channel, got 2"),
        ({"name": "digits", "std": (0.0,)}, "std: wanted numbers above 0"),
        ({"name": "imagefolder"}, "--data-root: imagefolder wants the folder that holds train/ and test/"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        data.load(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_split_is_checked() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"images: wanted torch\.uint8, got torch\.float32"):
        Split(images=images.float(), labels=labels)
    with pytest.raises(TypeError, match=r"labels: wanted torch\.int64, got torch\.int32"):
        Split(images=images, labels=labels.int())
    with pytest.raises(ValueError, match=r"images: wanted \(N, C, H, W\), none 0, got \(4, 2, 2\)"):
        Split(images=images[:, 0], labels=labels)
    with pytest.raises(ValueError, match=r"labels: wanted \(4,\), got \(3,\)"):
        Split(images=images, labels=labels[:3])


def test_image_data_is_checked() -> None:
    fake = data.load("fake")
    parts = {"name": "mine", "classes": fake.classes, "mean": fake.mean, "std": fake.std, "test": fake.test}
    with pytest.raises(ValueError, match=r"labels: wanted 0 to 8"):
        ImageData(**parts | {"classes": fake.classes[:9], "train": fake.train})
    smaller = Split(images=fake.train.images[..., :16], labels=fake.train.labels)
    with pytest.raises(ValueError, match=r"got \(3, 32, 16\) and \(3, 32, 32\)"):
        ImageData(**parts, train=smaller)
