"""The settings' defaults and checks."""

import json
from pathlib import Path

import pytest

from freefast import TrainConfig, UserError
from freefast.compare import CompareConfig
from freefast.config import METHODS


def test_cifar10_is_trained_as_in_the_report() -> None:
    fast = TrainConfig(method="fast", dataset="cifar10")
    assert (fast.model, fast.epochs, fast.batch_size, fast.augment) == ("preactresnet18", 45, 128, True)
    assert (fast.epsilon, fast.alpha, fast.lr_max) == (8 / 255, pytest.approx(10 / 255), 0.2)
    assert (fast.schedule, fast.momentum, fast.weight_decay) == ("cyclic", 0.9, 5e-4)
    assert (fast.label_smoothing, fast.weight_average, fast.resize_epochs, fast.peak) == (0, 0, 0, 0.5)
    assert (fast.compile, fast.cudnn_search) == (False, False)
    assert (fast.guard_samples, fast.on_collapse, fast.select) == (None, "continue", None)
    assert (fast.delta_init, fast.setting) == ("random", "alpha=10/255")
    free = TrainConfig(method="free", dataset="cifar10")
    assert (free.lr_max, free.replays, free.updates_per_batch, free.setting) == (0.04, 8, 8, "m=8")
    pgd = TrainConfig(method="pgd", dataset="cifar10")
    assert (pgd.alpha, pgd.pgd_steps, pgd.setting) == (pytest.approx(2 / 255), 7, "7 steps, alpha=2/255")


def test_step_sizes_follow_a_given_epsilon() -> None:
    assert TrainConfig(method="fast", epsilon=0.1).alpha == pytest.approx(0.125)
    assert TrainConfig(method="pgd", epsilon=0.1).alpha == pytest.approx(0.025)
    assert TrainConfig(method="fast", epsilon=0.1, alpha=0.2).setting == "alpha=0.2"
    assert TrainConfig(method="fast", delta_init="zero").setting == "alpha=0.25, zero start"


def test_noise_asks_for_a_random_start() -> None:
    assert TrainConfig(method="fast", grad_align=0.2).delta_init == "zero"
    assert TrainConfig(method="fast", grad_align=0.2, noise_magnitude=2, clip=False).delta_init == "random"


def test_cures_bring_their_papers_settings() -> None:
    nfgsm = TrainConfig(method="fast", dataset="cifar10", noise_magnitude=2, clip=False)
    assert (nfgsm.alpha, nfgsm.delta_init, nfgsm.setting) == (
        8 / 255,
        "random",
        "alpha=8/255, noise 2 epsilon, no clip",
    )
    aligned = TrainConfig(method="fast", dataset="cifar10", grad_align=0.2)
    assert (aligned.delta_init, aligned.noise_magnitude, aligned.clip) == ("zero", 1, True)
    assert aligned.setting == "alpha=10/255, zero start, GradAlign 0.2"
    fast = TrainConfig(method="fast", dataset="cifar10")
    assert (fast.noise_magnitude, fast.clip, fast.grad_align) == (1, True, 0)


def test_digits_have_defaults_of_their_own() -> None:
    config = TrainConfig(method="standard")
    assert (config.dataset, config.model, config.epsilon, config.augment) == ("digits", "small_cnn", 0.2, False)
    assert config.out == Path("runs/digits-small_cnn-standard-0")


def test_paths_may_be_text_and_data_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(method="fast", out="runs/x", data_root="images")
    assert (config.out, config.data_root) == (Path("runs/x"), tmp_path / "images")


@pytest.mark.parametrize("method", METHODS)
def test_json_brings_the_same_settings_back(method: str) -> None:
    config = TrainConfig(method=method, data_root=Path("a b"), eval_steps=(1, 2), width=3, limit_test=4)
    assert TrainConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


def test_json_of_another_version_is_refused() -> None:
    with pytest.raises(UserError, match="momentun"):
        TrainConfig.from_json({"method": "fast", "momentun": 0.9})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "slow"}, "method: wanted one of standard, free, fast, pgd, got 'slow'"),
        ({"dataset": "mnist"}, "dataset: wanted one of digits"),
        ({"model": "lenet"}, "model: wanted one of preactresnet18"),
        ({"schedule": "flat"}, "schedule: wanted one of cyclic, multistep"),
        ({"backend": "fpga"}, "backend: wanted one of auto"),
        ({"epsilon": -0.1}, "epsilon: wanted a finite number of at least 0"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": 8}, "epsilon: wanted at most 1, in pixel units, got 8: is 8/255 meant?"),
        ({"epochs": "3"}, "epochs: wanted a whole number, got '3'"),
        ({"epochs": 1.5}, "epochs: wanted a whole number, got 1.5"),
        ({"epochs": True}, "epochs: wanted a whole number, got True"),
        ({"epsilon": "0.1"}, "epsilon: wanted a number, got '0.1'"),
        ({"eval_steps": 5}, "eval_steps: wanted a list, each a whole number, got 5"),
        ({"eval_steps": (5.5,)}, "eval_steps: wanted a list"),
        ({"data_root": 5}, "data_root: wanted a path, got 5"),
        ({"augment": 1}, "augment: wanted true or false, got 1"),
        ({"schedule": ["cyclic"]}, "schedule: wanted text"),
        ({"alpha": -1}, "alpha"),
        ({"lr_max": float("inf")}, "lr_max"),
        ({"epochs": 0}, "epochs: wanted a finite number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"limit_train": 0}, "limit_train"),
        ({"eval_steps": (10, 0)}, "eval_steps"),
        ({"restarts": 0}, "restarts"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"delta_init": "one"}, "delta_init: wanted one of zero, random, previous"),
        ({"replays": 4}, "replays: is of free, got it for fast"),
        ({"method": "free", "replays": 0}, "replays"),
        ({"label_smoothing": 1}, r"label_smoothing: wanted a number in \[0, 1\), got 1"),
        ({"weight_average": -0.1}, "weight_average"),
        ({"weight_average": float("nan")}, "weight_average"),
        ({"peak": 1.0}, "peak: wanted a number in"),
        ({"peak": 0.5, "schedule": "multistep"}, "peak: is of cyclic, got it for multistep"),
        ({"resize_from": 0, "resize_epochs": 1}, "resize_from"),
        ({"resize_from": 6}, "resize_from and resize_epochs: wanted both or none"),
        ({"resize_epochs": 6}, "resize_from and resize_epochs: wanted both or none"),
        ({"resize_from": 6, "resize_epochs": 21}, "resize_epochs: wanted at most 20, the epochs, got 21"),
        ({"method": "free", "alpha": 0.1}, "alpha: is of fast and pgd, got it for free"),
        ({"method": "pgd", "pgd_steps": 0}, "pgd_steps"),
        ({"method": "pgd", "clip": True}, "clip: is of fast, got it for pgd"),
        ({"noise_magnitude": -1}, "noise_magnitude"),
        ({"noise_magnitude": 1e300}, "noise_magnitude: wanted at most 100, in epsilons, got 1e"),
        ({"noise_magnitude": 2, "delta_init": "zero"}, "noise_magnitude: is of a random start, got it for .* zero"),
        ({"clip": False, "delta_init": "previous"}, "clip: off lets the perturbation grow"),
        ({"grad_align": float("nan")}, "grad_align"),
        ({"grad_align": 0.2, "compile": True}, "grad_align: torch.compile does not differentiate twice"),
        ({"guard_samples": -1}, "guard_samples"),
        ({"method": "standard", "guard_samples": 5}, "guard_samples: is of free and fast and pgd, got it for standard"),
        ({"on_collapse": "panic"}, "on_collapse: wanted one of continue, stop, rollback, got 'panic'"),
        ({"method": "free", "on_collapse": "rollback"}, "on_collapse: rollback shrinks alpha, .*, got it for free"),
        ({"on_collapse": "stop", "guard_samples": 0}, "on_collapse: stop is by the guard, which guard_samples 0 turns"),
        ({"select": "first"}, "select: wanted one of best, last, report, got 'first'"),
        ({"select": "best", "guard_samples": 0}, "select: best is by the guard, which .* guard_samples 0 have none of"),
        ({"method": "standard", "select": "best"}, "select: best is by the guard, which standard"),
        ({"select": "report"}, "select: report is by evaluations during training: give eval_every and curve_steps"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**{"method": "fast", **settings})


def test_a_comparison_gives_each_method_what_is_its_own() -> None:
    config = CompareConfig(replays=3, alpha=0.3, pgd_steps=2, epochs=4, seed=5, out=Path("c"))
    free, fast, pgd = (config.train_config(method) for method in ("free", "fast", "pgd"))
    assert (free.replays, fast.alpha, pgd.pgd_steps, pgd.alpha) == (3, 0.3, 2, 0.05)
    assert {run.epochs for run in (free, fast, pgd)} == {4}
    assert {run.seed for run in (free, fast, pgd)} == {5}
    assert free.out == Path("c/free")


@pytest.mark.parametrize("methods", [(), ("fast", "fast")])
def test_a_comparison_needs_different_methods(methods: tuple) -> None:
    with pytest.raises(UserError, match="methods"):
        CompareConfig(methods=methods)
