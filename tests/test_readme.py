"""What README.md shows runs as it stands, and what it and docs/ link to exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import freefast as ff

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SMALL = {"dataset": "fake", "epochs": 1, "limit_train": 64, "limit_test": 32}


def classifier(device: str) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10)).to(device)


def batch(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(4, 3, 8, 8, device=device), torch.arange(4, device=device)


def test_own_loop(device: str) -> None:
    x, y = batch(device)
    names: dict[str, Any] = {"model": classifier(device), "x": x.clone(), "y": y}
    exec(BLOCKS[0], names)
    assert torch.equal(names["x"], x)
    assert torch.equal(names["adv"], x + names["delta"])
    assert 7 / 255 < names["delta"].abs().max() <= torch.tensor(8 / 255)
    assert names["adv"].min() >= 0
    assert names["adv"].max() <= 1
    loss = torch.nn.functional.cross_entropy
    assert loss(names["model"](names["adv"]), y) > loss(names["model"](x), y)


def test_train_and_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block with made-up images in the place of CIFAR-10, and little of them."""
    config, load = ff.TrainConfig, ff.data.load

    def small_config(**settings: Any) -> ff.TrainConfig:
        assert config(**settings).dataset == "cifar10"
        return config(**settings | SMALL, out=tmp_path / "run", device="cpu")

    def small_load(name: str, **options: Any) -> ff.data.ImageData:
        return load("fake", limit_train=64, limit_test=32) if name == "cifar10" else load(name, **options)

    monkeypatch.setattr(ff, "TrainConfig", small_config)
    monkeypatch.setattr(ff.data, "load", small_load)
    images, labels = batch("cpu")
    names: dict[str, Any] = {"model": classifier("cpu"), "images": images, "labels": labels}
    exec(BLOCKS[1], names)
    assert 0 < (names["adv"] - images).abs().max() <= 8 / 255 + 1e-6
    assert names["result"].row["method"] == "fast"
    assert names["report"].pgd.keys() == {10, 20, 50}
    assert names["report"].samples == 32


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    missing = [name for name in files if name and not (document.parent / name).exists()]
    assert not missing
