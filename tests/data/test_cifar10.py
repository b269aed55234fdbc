import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from freefast import data
from freefast.errors import UserError

CLASSES = ["airplane", "automobile", "bird"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, dict]]:
    """A cifar-10-python.tar.gz as published but with 4 images a file, and what it holds; no network."""
    random = np.random.default_rng(0)
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    content: dict[str, dict] = {
        name: {
            "data": random.integers(0, 256, (4, 3072), dtype=np.uint8),
            "labels": random.integers(0, len(CLASSES), 4).tolist(),
        }
        for name in names
    }
    content["batches.meta"] = {"label_names": CLASSES}
    path = tmp_path / "root" / CIFAR10.filename
    path.parent.mkdir()
    checksums = {}
    with tarfile.open(path, "w:gz") as tar:
        for name, entry in content.items():
            blob = pickle.dumps(entry)
            checksums[name] = hashlib.md5(blob).hexdigest()
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(blob)
            tar.addfile(member, io.BytesIO(blob))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, checksums[name]] for name in names[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[-1], checksums[names[-1]]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": checksums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")
    return path, content


def test_archive_put_into_root_is_read(archive: tuple[Path, dict[str, dict]]) -> None:
    path, content = archive
    cifar = data.load("cifar10", root=path.parent)
    assert cifar.classes == tuple(CLASSES)
    assert (cifar.mean, cifar.std) == (data.CIFAR10_MEAN, data.CIFAR10_STD)
    train_names = [f"data_batch_{number}" for number in range(1, 6)]
    for split, names in ((cifar.train, train_names), (cifar.test, ["test_batch"])):
        pixels = np.concatenate([content[name]["data"] for name in names])  # a row: red, green, blue
        assert torch.equal(split.images, torch.from_numpy(pixels).view(-1, 3, 32, 32))
        assert split.labels.tolist() == [label for name in names for label in content[name]["labels"]]


def test_offline_error_says_which_file_goes_where(archive: tuple[Path, dict[str, dict]]) -> None:
    path, _ = archive
    path.unlink()
    with pytest.raises(UserError) as caught:
        data.load("cifar10", root=path.parent)
    message = str(caught.value)
    assert "put cifar-10-python.tar.gz" in message
    assert f"into {path.parent}" in message
    assert "\n" not in message


def test_damaged_archive_is_not_unpacked(archive: tuple[Path, dict[str, dict]]) -> None:
    path, _ = archive
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot download"):
        data.load("cifar10", root=path.parent)
    assert not (path.parent / CIFAR10.base_folder).exists()
