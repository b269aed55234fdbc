import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from freefast import data
from freefast.data import decode
from freefast.errors import UserError

Write = Callable[..., None]


def torchvision_split(folder: Path) -> tuple[torch.Tensor, list[int]]:
    samples = list(ImageFolder(str(folder)))
    return torch.stack([pil_to_tensor(image) for image, _ in samples]), [label for _, label in samples]


def assert_as_torchvision(loaded: data.ImageData, root: Path) -> None:
    for name, split in (("train", loaded.train), ("test", loaded.test)):
        images, labels = torchvision_split(root / name)
        assert torch.equal(split.images, images)
        assert split.labels.tolist() == labels


@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_images_and_labels_are_torchvisions(
    tree: Path, write: Write, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(decode, "CHUNK", chunk)
    for number, suffix in enumerate((".jpg", ".BMP", ".jpeg", ".webp", ".tiff", ".ppm")):
        write(tree / "train" / "bee" / f"part{number}", 2, 20 + number, suffix=suffix)
    loaded = data.load("imagefolder", root=tree)
    assert loaded.classes == ("ant", "bee", "cow")
    assert (loaded.channels, loaded.image_size) == (3, (12, 10))
    assert (loaded.mean, loaded.std) == (data.CIFAR10_MEAN, data.CIFAR10_STD)
    assert len(loaded.train) == 27
    assert_as_torchvision(loaded, tree)
    assert_as_torchvision(data.load("imagefolder", root=tree), tree)


def test_grey_image_in_a_colour_tree_becomes_rgb(tree: Path, write: Write) -> None:
    write(tree / "train" / "ant", 3, 30, channels=1)  # in the place of 3 colour images, the first among them
    loaded = data.load("imagefolder", root=tree)
    assert loaded.channels == 3
    assert_as_torchvision(loaded, tree)


def test_grey_tree_has_one_channel(tree: Path, write: Write) -> None:
    for folder in [*tree.glob("train/*"), *tree.glob("test/*")]:
        write(folder, 5, 40, channels=1)
    loaded = data.load("imagefolder", root=tree)
    assert (loaded.channels, loaded.mean, loaded.std) == (1, (0.0,), (1.0,))
    assert torch.equal(loaded.train.images, torchvision_split(tree / "train")[0][:, :1])


def test_image_size_resizes(tree: Path) -> None:
    Image.new("RGB", (30, 40), (200, 100, 50)).save(tree / "train" / "ant" / "0.png")
    loaded = data.load("imagefolder", root=tree, image_size=(6, 8))
    assert loaded.image_size == (6, 8)
    assert (loaded.train.images[0] == torch.tensor([200, 100, 50]).view(3, 1, 1)).all()
    with Image.open(tree / "train" / "ant" / "1.png") as image:
        small = pil_to_tensor(image.resize((8, 6), Image.Resampling.BILINEAR))
    assert torch.equal(loaded.train.images[1], small)
    assert data.load("imagefolder", root=tree, image_size=7).image_size == (7, 7)


def test_files_that_are_no_images_are_ignored(tree: Path) -> None:
    clean = data.load("imagefolder", root=tree)
    for name in ("notes.txt", "Thumbs.db", "0", "._0.png"):
        (tree / "train" / "ant" / name).write_text("no image")
    (tree / "train" / ".ipynb_checkpoints").mkdir()
    (tree / "train" / "readme.png").write_text("no image, and in no class folder")
    assert torch.equal(data.load("imagefolder", root=tree).train.images, clean.train.images)


def break_root(root: Path) -> Path:
    shutil.rmtree(root)
    return root / "train"


def break_test(root: Path) -> Path:
    shutil.rmtree(root / "test")
    return root / "test"


def break_classes(root: Path) -> Path:
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    return root / "test"


def break_class(root: Path) -> Path:
    shutil.rmtree(root / "train" / "bee")
    (root / "train" / "bee").mkdir()
    return root / "train" / "bee"


def break_suffixes(root: Path) -> Path:
    for path in (root / "test" / "cow").iterdir():
        path.rename(path.with_suffix(""))
    return root / "test" / "cow"


def break_names(root: Path) -> Path:
    (root / "test" / "bee").rename(root / "test" / "boa")
    return root


def break_file(root: Path) -> Path:
    path = root / "train" / "cow" / "4.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def break_content(root: Path) -> Path:
    path = root / "test" / "ant" / "1.png"
    path.write_text("no image")
    return path


def break_size(root: Path) -> Path:
    path = root / "test" / "bee" / "0.png"
    Image.new("RGB", (11, 12)).save(path)
    return path


def break_depth(root: Path) -> Path:
    path = root / "test" / "bee" / "0.png"
    Image.fromarray(np.zeros((12, 10), dtype=np.uint16)).save(path)
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_root, "no such folder; wanted train/ and test/"),
        (break_test, "no such folder; wanted train/ and test/"),
        (break_classes, "no class folders"),
        (break_class, "no images"),
        (break_suffixes, "no images (2 files of no known image suffix)"),
        (break_names, "different class folders (only in train: bee; only in test: boa)"),
        (break_file, "not a readable image"),
        (break_content, "not a readable image"),
        (break_size, "wanted 10x12 pixels as in the first image, got 11x12"),
        (break_depth, "wanted 8 bits a channel"),
    ],
)
def test_broken_tree_is_one_clear_line(tree: Path, damage: Callable[[Path], Path], message: str) -> None:
    path = damage(tree)
    with pytest.raises(UserError) as caught:
        data.load("imagefolder", root=tree)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tree.rglob("*.npy"))
    assert not list(tree.rglob("*.tmp"))
