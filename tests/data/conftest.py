from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def write_images(folder: Path, count: int, seed: int, *, suffix: str = ".png", channels: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (12, 10, 3) if channels == 3 else (12, 10), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{suffix}")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """3 classes of 5 training and 2 test images, 12 rows by 10 columns, with the user's cache elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    root = tmp_path / "tree"
    for label, name in enumerate(CLASSES):
        write_images(root / "train" / name, 5, label)
        write_images(root / "test" / name, 2, 10 + label)
    return root


@pytest.fixture
def write() -> Callable[..., None]:
    """write(folder, count, seed, suffix=".png", channels=3) adds images to a folder."""
    return write_images
