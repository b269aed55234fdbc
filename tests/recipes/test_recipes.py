"""Recipes: what they say, what they refuse, and what the command line makes of them."""

import fnmatch
import json
import sys
from pathlib import Path

import pytest

from freefast import TrainConfig, UserError, recipes
from freefast.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(recipes.__file__).parent
SMALL = ["--limit-train", "40", "--limit-test", "10", "--width", "4", "--eval-steps", "1"]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_where_it_comes_from_and_is_of_cifar10(name: str) -> None:
    assert "20" in (FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("method =")[0]
    config = TrainConfig(**recipes.read(name))
    assert (config.dataset, config.model, config.epsilon) == ("cifar10", "preactresnet18", 8 / 255)
    assert (config.eval_steps, config.restarts) == ((50,), 10)


def test_wongs_settings() -> None:
    """The defaults of train_fgsm.py and train_free.py."""
    shared = {"batch_size": 128, "schedule": "cyclic", "momentum": 0.9, "weight_decay": 5e-4}
    shared |= {"precision": "half-fp16", "master_weights": False, "loss_scale": "none", "epsilon": 8 / 255}
    own = {
        "fast-15": {"method": "fast", "epochs": 15, "lr_max": 0.2, "alpha": 10 / 255, "delta_init": "random"},
        "free-8": {"method": "free", "epochs": 11, "lr_max": 0.04, "replays": 8},
    }
    for name, settings in own.items():
        config = TrainConfig(**recipes.read(name))
        assert {key: getattr(config, key) for key in {**shared, **settings}} == {**shared, **settings}


def test_the_speedrun_changes_nothing_but_precision_in_wongs_training() -> None:
    ours, wongs = (TrainConfig(**recipes.read(name)).as_json() for name in ("speedrun", "fast-15"))
    assert {name for name in ours if ours[name] != wongs[name]} == {"master_weights", "loss_scale"}


def test_they_are_in_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["freefast"]
    for name in recipes.names():
        assert any(fnmatch.fnmatch(f"recipes/{name}.toml", pattern) for pattern in patterns)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(*arguments: str) -> dict:
    """The settings of a run by a recipe."""
    assert main(["train", *arguments, *SMALL, "--out", "run"]) == 0
    return json.loads(Path("run/config.json").read_text(encoding="utf-8"))


def test_options_count_more_than_the_recipe_and_the_recipe_more_than_defaults(folder: Path) -> None:
    (folder / "own.toml").write_text('method = "fast"\nepochs = 2\nmomentum = 0.8\nalpha = "51/255"\nweight_decay = 0')
    config = settings_of("--recipe", "own.toml", "--momentum", "0.9", "--weight-decay", "0.001")
    assert (config["method"], config["epochs"], config["alpha"]) == ("fast", 2, 0.2)
    assert (config["momentum"], config["weight_decay"], config["lr_max"]) == (0.9, 0.001, 0.2)
    assert "recipe" not in config


def test_what_a_recipe_leaves_open_follows_the_options(folder: Path) -> None:
    (folder / "own.toml").write_text('method = "fast"\ndataset = "cifar10"\nepochs = 1\naugment = true')
    config = settings_of("--recipe=own.toml", "--dataset", "digits")
    assert (config["model"], config["epsilon"], config["alpha"]) == ("small_cnn", 0.2, 0.25)
    assert config["augment"] is True


def test_the_method_may_be_another(folder: Path) -> None:
    """What is not of it falls away."""
    (folder / "own.toml").write_text('method = "fast"\nepochs = 1\nalpha = 0.1\ndelta_init = "zero"')
    config = settings_of("pgd", "--recipe", "own.toml")
    assert (config["method"], config["epochs"], config["pgd_steps"]) == ("pgd", 1, 7)
    assert (config["alpha"], config["delta_init"]) == (0.1, None)


def test_a_packaged_recipe_by_its_name(folder: Path) -> None:
    options = ["--recipe", "fast-15", "--dataset", "fake", "--model", "small_cnn", "--epochs", "1", "--restarts", "1"]
    config = settings_of(*options)
    assert (config["alpha"], config["epsilon"], config["lr_max"]) == (10 / 255, 8 / 255, 0.2)
    assert (config["master_weights"], config["epochs"], config["dataset"]) == (False, 1, "fake")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "fast"\nmomentun = 0.9', "own.toml: momentun: is no setting"),
        ('method = "fast"\nepochs = "3"', "own.toml: epochs: wanted a whole number, got '3'"),
        ('method = "fast"\nepochs = 0', "own.toml: epochs: wanted a finite number of at least 1"),
        ('method = "fast"\nalpha = "8/0"', "own.toml: alpha: wanted a number or a fraction such as 8/255"),
        ('method = "fast"\nreplays = 3', "own.toml: replays: is of free"),
        ('method = "slow"', "own.toml: method: wanted one of standard"),
        ("epochs = 3", "own.toml: method: is missing"),
        ('method = "fast"\n[optimizer]\nlr = 1', "own.toml: optimizer: is no setting"),
        ('method = "fast"\neval_steps = ["10"]', "own.toml: eval_steps: wanted a list"),
        ("method =", "own.toml: not TOML"),
    ],
)
def test_a_wrong_recipe_is_one_line_with_file_and_field(
    text: str, message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "own.toml").write_text(text)
    assert main(["train", "--recipe", "own.toml"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["own.toml"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("nowhere", "recipe: wanted a file that ends in .toml, or one of fast-15, free-8, speedrun, got 'nowhere'"),
        ("../recipes/fast-15", "recipe: wanted a file"),
        ("", "recipe: wanted a file"),
        ("nowhere.toml", "nowhere.toml: No such file"),
        (".toml", ".toml: No such file"),
    ],
)
def test_there_is_no_such_recipe(recipe: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        recipes.read(recipe)


def test_a_recipe_without_a_name(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "fast", "--recipe"]) == 2
    assert "recipe" in capsys.readouterr().err
    assert main(["compare", "--recipe", "fast-15"]) == 2
