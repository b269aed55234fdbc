"""Pictures of a finished run's weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import freefast as ff
from freefast.pictures import draw
from freefast.reporting.text import told_apart
from freefast.summary import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "standard"
    ff.train(ff.TrainConfig(method="standard", width=8, epochs=3, eval_steps=(1,), device="cpu", out=out))
    return out


def test_they_show_the_weights_and_the_data_of_the_run(run: Path, tmp_path: Path) -> None:
    examples, surface = draw([run], ["standard"], tmp_path)
    digits = ff.data.load("digits")
    model = ff.models.build("small_cnn", 10, 1, width=8).eval()
    model.load_state_dict(load_file(run / "model.safetensors"))
    model = model.double()

    def logits(split: ff.data.Split) -> torch.Tensor:
        return model((split.images / 255.0 - digits.mean[0]).double() / digits.std[0])

    split = digits.test.take(32, 0)
    clean = F.cross_entropy(logits(split), split.labels).item()
    row = surface.rows[0]
    assert (row["run"], row["clean"]) == ("standard", pytest.approx(clean, rel=1e-4))
    assert row["largest"] > 2 * row["clean"]
    assert 0 < row["nonlinearity"] < row["largest"] * 32
    first = [digits.test.labels.tolist().index(label) for label in range(10)]
    right = (logits(digits.test).argmax(1) == digits.test.labels)[first].sum()
    assert f"standard: {right} of 10 right without attack" in examples.pictures[0].caption
    assert "at epsilon 0.2." in examples.pictures[0].caption
    assert {path.name for path in tmp_path.iterdir()} == {"examples.png", "loss_surface.png"}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10


def test_several_runs_have_a_picture_each(run: Path, tmp_path: Path) -> None:
    sections = draw([run, run], ["a", "b"], tmp_path)
    assert [row["run"] for row in sections[1].rows] == ["a", "b"]
    assert {path.name for path in tmp_path.iterdir()} == {"examples_a.png", "examples_b.png", "loss_surface.png"}


def test_runs_of_one_name_are_told_apart() -> None:
    assert told_apart(["free", "fast"]) == ["free", "fast"]
    assert told_apart(["a", "b", "a"]) == ["a-1", "b", "a-2"]
    assert told_apart(["a", "a", "a-1"]) == ["a-2", "a-3", "a-1"]


def test_a_run_whose_weights_do_not_fit_is_named(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((run / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"garbage")
    (section,) = draw([broken], ["broken"], tmp_path)
    assert section.text.startswith(f"broken is not shown: {broken / 'model.safetensors'}: not safetensors")
    assert section.pictures == []


def test_a_run_of_another_machine_is_shown(run: Path, tmp_path: Path) -> None:
    """Trained by a backend and on a device that are not here."""
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(run, other)
    out.mkdir()
    config = json.loads((run / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "backend": "triton", "device": "cuda:7"}))
    here = draw([run], ["own"], out, "cpu")[1].rows[0]
    assert draw([other], ["other"], out, "cpu")[1].rows[0] == {**here, "run": "other"}
    assert draw([other], ["other"], out)[0].text.startswith("other is not shown: device: cuda:7 is not there")


def test_curves_that_are_gone_are_drawn_again(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    (copy / "curves.png").unlink()
    write_report([copy], copy, pictures=False)
    assert (copy / "curves.png").read_bytes() == (run / "curves.png").read_bytes()
