"""Recipes: what they say, what they refuse, and what the command line makes of them."""

import dataclasses
import fnmatch
import json
import re
import sys
from pathlib import Path

import pytest

from freefast import TrainConfig, UserError, recipes, summary
from freefast.cli import main
from freefast.reproduce import published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(recipes.__file__).parent
REPORT = [name for name in recipes.names() if name.startswith("report/")]
SMALL = ["--limit-train", "40", "--limit-test", "10", "--width", "4", "--eval-steps", "1"]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_where_it_comes_from_and_is_of_cifar10(name: str) -> None:
    assert "20" in (FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("method =")[0]
    config = TrainConfig(**recipes.read(name))
    assert (config.dataset, config.epsilon) == ("cifar10", 8 / 255)
    if name not in REPORT:
        assert (config.model, config.eval_steps, config.restarts) == ("preactresnet18", (50,), 10)


def test_wongs_settings() -> None:
    """The defaults of train_fgsm.py and train_free.py."""
    shared = {"batch_size": 128, "schedule": "cyclic", "momentum": 0.9, "weight_decay": 5e-4}
    shared |= {"precision": "half-fp16", "master_weights": False, "loss_scale": "none", "epsilon": 8 / 255}
    shared |= {"evaluate_in": "fp32"}
    own = {
        "fast-15": {"method": "fast", "epochs": 15, "lr_max": 0.2, "alpha": 10 / 255, "delta_init": "random"},
        "free-8": {"method": "free", "epochs": 11, "lr_max": 0.04, "replays": 8},
    }
    for name, settings in own.items():
        config = TrainConfig(**recipes.read(name))
        assert {key: getattr(config, key) for key in {**shared, **settings}} == {**shared, **settings}


def test_the_speedrun_changes_precision_epochs_and_search_in_wongs_training() -> None:
    ours, wongs = (TrainConfig(**recipes.read(name)).as_json() for name in ("speedrun", "fast-15"))
    assert {name for name in ours if ours[name] != wongs[name]} == {
        "master_weights", "loss_scale", "epochs", "cudnn_search",
    }  # fmt: skip


def test_they_are_in_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["freefast"]
    for name in recipes.names():
        assert any(fnmatch.fnmatch(f"recipes/{name}.toml", pattern) for pattern in patterns)


@pytest.mark.parametrize("name", REPORT)
def test_a_recipe_of_the_report_is_the_run_that_its_name_says(name: str) -> None:
    """free-MODEL-mREPLAYS-eEPOCHS, fast-MODEL-BATCH-aSTEP-eEPOCHS, and what is common in the report's code."""
    form = r"report/(free|fast)-(preactresnet18|resnet50)-(?:m(\d+)|(\d+)-a(\d+))-e(\d+)(?:-charts)?"
    method, model, replays, batch, alpha, epochs = re.fullmatch(form, name).groups()
    config = TrainConfig(**recipes.read(name))
    assert (config.method, config.model, config.epochs) == (method, model, int(epochs))
    assert config.batch_size == int(batch or 128)
    assert (config.replays, config.alpha) == (int(replays or 0) or None, int(alpha) / 255 if alpha else None)
    assert (config.lr_max, config.schedule, config.peak) == (0.04 if method == "free" else 0.2, "cyclic", 0.5)
    assert (config.momentum, config.weight_decay, config.restarts) == (0.9, 5e-4, 1)
    assert (config.precision, config.master_weights, config.loss_scale) == ("half-fp16", False, "none")
    assert config.evaluate_in == "fp32"
    assert (config.augment, config.width, config.delta_init) == (True, None, "random" if method == "fast" else None)
    assert (config.guard_samples, config.select) == (0, None)


def test_the_report_has_thirteen_runs_attacked_as_their_logs_are() -> None:
    """Three attacks at the end, or PGD-50 after every epoch; the tables want both of the charts' runs of 45 epochs."""
    runs = published.runs()
    assert {f"report/{name}" for name in runs} == set(REPORT)
    assert len(runs) == 13
    for name, run in runs.items():
        config = TrainConfig(**recipes.read(f"report/{name}"))
        curve = [entry for entry in run.metrics if "pgd50" in entry]
        assert len(run.metrics) == config.epochs
        assert (config.eval_every, config.curve_steps) == ((1, (50,)) if len(curve) > 1 else (0, (10,)))
        assert config.eval_steps == ((50,) if config.epochs == 90 else (10, 20, 50))


def test_a_setting_that_a_recipe_does_not_know_is_the_default() -> None:
    """So recipes stay what they are when freefast gets new options."""
    for name in recipes.names():
        given = recipes.read(name)
        assert set(given) < {field.name for field in dataclasses.fields(TrainConfig)}
        config, default = TrainConfig(**given), TrainConfig(method=given["method"], dataset="cifar10")
        implied = {"master_weights", "loss_scale", "model_options"}
        for field in dataclasses.fields(TrainConfig):
            if field.name not in {*given, *implied, "out"}:
                assert getattr(config, field.name) == getattr(default, field.name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; runs in it get no pictures, which take longer than they do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "draw", lambda *_: [])
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
    "name",
    [f"report/{name}" for name in (
        "fast-preactresnet18-256-a16-e45", "fast-resnet50-128-a10-e90", "free-preactresnet18-m8-e45-charts",
        "free-resnet50-m8-e90",
    )],
)  # fmt: skip
def test_recipes_of_the_report_train(name: str, folder: Path) -> None:
    """Shrunk by options; every other setting is the recipe's."""
    small = {"dataset": "fake", "epochs": 1, "width": 8, "limit_train": 10, "limit_test": 4, "batch_size": 10,
             "eval_steps": (1,), "curve_steps": (1,), "precision": "fp32", "augment": False}  # fmt: skip
    options = [word for key, value in small.items() for word in _option(key, value)]
    assert main(["train", "--recipe", name, *options, "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text(encoding="utf-8"))
    for key, value in (recipes.read(name) | small).items():
        assert config[key] == (list(value) if isinstance(value, tuple) else value), key


def _option(name: str, value: object) -> list[str]:
    words = value if isinstance(value, tuple) else ["off"] if value is False else [value]
    return [f"--{name.replace('_', '-')}", *map(str, words)]


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
        (
            "nowhere",
            "recipe: wanted a file that ends in .toml, or one of fast-15, free-8, report/.*, speedrun, got 'nowhere'",
        ),
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
