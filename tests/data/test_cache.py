import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from freefast import data
from freefast.data import decode, imagefolder
from freefast.errors import UserError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of files whenever a tree is decoded."""
    calls: list[int] = []
    original = imagefolder.decode

    def count(paths: list[str], **arguments: object) -> None:
        calls.append(len(paths))
        original(paths, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(imagefolder, "decode", count)
    return calls


def cached(root: Path) -> list[Path]:
    return sorted((root / ".freefast-cache").glob("*"))


def touch(root: Path) -> None:
    path = root / "train" / "bee" / "3.png"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def repaint(root: Path) -> None:
    path = root / "train" / "bee" / "3.png"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    Image.new("RGB", (10, 12), (1, 2, 3)).save(path)
    os.utime(path, ns=times)


def add(root: Path) -> None:
    Image.new("RGB", (10, 12), (1, 2, 3)).save(root / "train" / "bee" / "new.png")


def remove(root: Path) -> None:
    (root / "test" / "cow" / "0.png").unlink()


def rename(root: Path) -> None:
    (root / "train" / "ant" / "0.png").rename(root / "train" / "ant" / "zero.png")


def test_second_load_maps_the_cache(tree: Path, decoded: list[int]) -> None:
    first = data.load("imagefolder", root=tree)
    second = data.load("imagefolder", root=tree, limit_test=3)
    assert decoded == [21]
    assert torch.equal(first.train.images, second.train.images)
    assert len(second.test) == 3
    (path,) = cached(tree)
    before = path.read_bytes()
    second.train.images.zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [touch, repaint, add, remove, rename])
def test_changed_tree_is_decoded_anew(tree: Path, decoded: list[int], change: Callable[[Path], None]) -> None:
    data.load("imagefolder", root=tree)
    (old,) = cached(tree)
    change(tree)
    changed = data.load("imagefolder", root=tree)
    assert len(decoded) == 2
    (new,) = cached(tree)
    assert new != old
    new.unlink()
    assert torch.equal(data.load("imagefolder", root=tree).train.images, changed.train.images)


def test_sizes_are_cached_side_by_side(tree: Path, decoded: list[int]) -> None:
    for image_size in (None, 6, None, 6):
        data.load("imagefolder", root=tree, image_size=image_size)
    assert len(decoded) == 2


def test_moved_tree_keeps_its_cache(tree: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    data.load("imagefolder", root=tree)
    moved = tree.rename(tree.with_name("moved"))
    data.load("imagefolder", root=moved)
    monkeypatch.chdir(moved.parent)
    data.load("imagefolder", root="moved")
    assert len(decoded) == 1


def test_damaged_cache_is_decoded_anew(tree: Path, decoded: list[int]) -> None:
    truth = data.load("imagefolder", root=tree).train.images.clone()
    for damage in (b"", b"\x93NUMPY", cached(tree)[0].read_bytes()[:-1]):
        cached(tree)[0].write_bytes(damage)
        assert torch.equal(data.load("imagefolder", root=tree).train.images, truth)
    assert len(decoded) == 4


def test_interrupted_decode_leaves_no_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "CHUNK", 2)
    original = decode._read

    def interrupt(path: str, **arguments: object) -> object:
        if path.endswith(os.path.join("train", "cow", "2.png")):
            os.kill(os.getpid(), signal.SIGINT)
        return original(path, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "_read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.load("imagefolder", root=tree)
    assert cached(tree) == []

    monkeypatch.setattr(decode, "_read", original)
    assert len(data.load("imagefolder", root=tree).train) == 15


def test_read_only_tree_is_cached_for_the_user(tree: Path, tmp_path: Path, decoded: list[int]) -> None:
    (tree / ".freefast-cache").write_text("a file: no folder can be made here")
    for _ in range(2):
        data.load("imagefolder", root=tree)
    assert len(decoded) == 1
    assert len(list((tmp_path / "user-cache" / "freefast").glob("*/*.npy"))) == 1


def test_no_place_to_write_is_a_clear_error(tree: Path, tmp_path: Path) -> None:
    for path in (tree / ".freefast-cache", tmp_path / "user-cache"):
        path.write_text("a file: no folder can be made here")
    with pytest.raises(UserError, match=r"no place for decoded images: cannot write to .*-cache nor to "):
        data.load("imagefolder", root=tree)
