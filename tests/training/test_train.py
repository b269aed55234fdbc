"""Whole runs on a few digits: files, metrics, resuming."""

import dataclasses
import json
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import advkernels as ak
from advkernels import dispatch
from freefast import TrainConfig, UserError, data, evaluate, models, train
from freefast.reporting import Run
from freefast.threat import ThreatModel
from freefast.training import loop, setup
from freefast.training.captured import CapturedStep, GraphWarning, Step
from freefast.training.run_folder import RunFolder

FILES = {
    "config.json", "metrics.jsonl", "checkpoint.pt", "model.safetensors", "results.json", "curves.png", "report.html",
    "verdicts.npz", "classes.csv",
}  # fmt: skip
OPEN = dict.fromkeys(["alpha", "delta_init", "noise_magnitude", "clip", "grad_align"])
"""Fast's own settings, left to the method."""


@pytest.fixture
def config(tmp_path: Path, device: str) -> TrainConfig:
    return TrainConfig(
        method="fast", width=4, limit_train=70, limit_test=40, batch_size=32, epochs=4, device=device,
        eval_every=2, curve_steps=(1,), eval_steps=(2, 3), out=tmp_path / "run",
    )  # fmt: skip


def interrupt_at(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come in the given batch of the run."""
    call, calls = CapturedStep.__call__, iter(range(1, 10**6))

    def interrupted(self: CapturedStep, count: int) -> None:
        if next(calls) == batch:
            raise KeyboardInterrupt
        call(self, count)

    monkeypatch.setattr(CapturedStep, "__call__", interrupted)


def without_time(path: Path) -> list[dict]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.endswith("seconds")} for line in lines]


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_run_writes_its_folder(config: TrainConfig) -> None:
    result = train(config)

    assert {path.name for path in config.out.iterdir()} == FILES
    assert [entry["epoch"] for entry in result.metrics] == [1, 2, 3, 4]
    assert [set(entry) >= {"natural", "pgd1"} for entry in result.metrics] == [False, True, False, False]
    run = Run.load(config.out)
    assert run.row == json.loads(json.dumps(result.row))
    assert run.row["samples"] == 40
    assert run.row["train_minutes"] == pytest.approx(sum(entry["seconds"] for entry in result.metrics) / 60)
    assert {"natural", "pgd2", "pgd3"} < set(run.row)
    assert run.config["width"] == 4
    assert TrainConfig.from_json(run.config) == config


def test_the_row_is_of_the_weights_on_disk(config: TrainConfig, device: str) -> None:
    row = train(config).row
    model = models.build("small_cnn", 10, 1, width=4)
    model.load_state_dict(load_file(config.out / "model.safetensors"))
    digits = data.load("digits", limit_test=40)
    threat = ThreatModel(epsilon=0.2, mean=digits.mean, std=digits.std)
    scores = evaluate(model.to(device), digits, threat, steps=(2, 3))
    # another number of threads or memory format may flip the sign of a gradient close to 0: one sample
    assert scores.as_row() == pytest.approx({name: row[name] for name in ("natural", "pgd2", "pgd3")}, abs=0.03)


def test_metrics_are_of_the_whole_epoch(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and accuracy weigh every sample alike, also those of the smaller last batch."""
    seen = []
    make_step = setup.make_step

    def make(config: TrainConfig) -> Step:
        step = make_step(config)

        def recording(state: object, images: torch.Tensor, labels: torch.Tensor) -> tuple:
            loss, logits = step(state, images, labels)
            seen.append((loss.item() * len(labels), (logits.argmax(1) == labels).sum().item(), len(labels)))
            return loss, logits

        return recording

    monkeypatch.setattr(setup, "make_step", make)
    metrics = train(dataclasses.replace(config, epochs=1, graph="off")).metrics[0]
    losses, correct, sizes = map(sum, zip(*seen, strict=True))
    assert sizes == 70
    assert metrics["train_loss"] == pytest.approx(losses / 70, rel=1e-6)
    assert metrics["train_accuracy"] == correct / 70


def test_training_learns(config: TrainConfig) -> None:
    config = dataclasses.replace(config, method="standard", **OPEN, limit_train=300, epochs=8)
    result = train(config)
    assert result.metrics[-1]["train_loss"] < 0.5 * result.metrics[0]["train_loss"]
    assert result.row["natural"] > 0.7


def test_the_same_seed_gives_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(config)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    train(dataclasses.replace(config, out=tmp_path / "again"))
    assert torch.equal(torch.get_rng_state(), state)
    train(dataclasses.replace(config, out=tmp_path / "other", seed=1))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again", "other"))
    assert same(first, again)
    assert not same(first, other)
    assert without_time(tmp_path / "run") == without_time(tmp_path / "again")


@pytest.mark.parametrize(
    ("method", "own", "batch"),
    [
        ("standard", {}, 8),
        ("free", {"replays": 2}, 8),
        ("fast", {"delta_init": "previous"}, 8),
        ("fast", {"delta_init": "random"}, 8),
        ("fast", {"delta_init": "random"}, 2),
        ("pgd", {"pgd_steps": 2}, 8),
        ("fast", {"weight_average": 0.9, "resize_from": 6, "resize_epochs": 2}, 5),
        ("free", {"weight_average": 0.9, "resize_from": 6, "resize_epochs": 2, "replays": 2}, 8),
        ("fast", {"delta_init": "previous", "resize_from": 6, "resize_epochs": 3, "label_smoothing": 0.1}, 8),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    config: TrainConfig, method: str, own: dict, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.results, "finish", lambda *_: {})
    config = dataclasses.replace(config, method=method, **{**OPEN, **own}, lr_max=0.1)
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    train(whole)
    with monkeypatch.context() as patch:
        interrupt_at(batch, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    finished = (batch - 1) // 3
    assert len(without_time(config.out)) == finished
    assert torch.load(config.out / "checkpoint.pt", weights_only=True)["epoch"] == finished
    assert not list(config.out.glob(".*"))

    train(config, resume=True)

    one, other = (
        torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        for folder in (whole.out, config.out)
    )
    assert same(one, other)
    assert same(*(load_file(folder / "model.safetensors") for folder in (whole.out, config.out)))
    assert without_time(config.out) == without_time(whole.out)


def test_results_of_weights_that_are_trained_on_are_dropped(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    (config.out / "results.json").write_text("{}")
    monkeypatch.setattr(loop.results, "finish", lambda *_: {})
    train(config, resume=True)
    assert not (config.out / "results.json").exists()


def test_files_may_be_read_by_whom_the_user_lets(config: TrainConfig) -> None:
    before = os.umask(0o027)
    try:
        train(dataclasses.replace(config, guard_samples=2))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in config.out.iterdir()}
    assert {"model.safetensors", "best.safetensors", "checkpoint.pt", "results.json", "verdicts.npz"} <= set(modes)
    assert set(modes.values()) == {0o640}


def test_metrics_ahead_of_the_checkpoint_are_dropped(config: TrainConfig, tmp_path: Path) -> None:
    """A run that died between the two writes of an epoch."""
    train(config)
    checkpoint = (config.out / "checkpoint.pt").read_bytes()
    wanted = without_time(config.out)
    with open(config.out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": 5}) + "\n")
    train(config, resume=True)
    assert without_time(config.out) == wanted
    assert (config.out / "checkpoint.pt").read_bytes() == checkpoint


def test_a_folder_with_a_run_is_not_overwritten_unasked(config: TrainConfig) -> None:
    config = dataclasses.replace(config, epochs=1, eval_every=0)
    train(config)
    before = (config.out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        train(dataclasses.replace(config, seed=1))
    assert (config.out / "model.safetensors").read_bytes() == before
    train(dataclasses.replace(config, seed=1), overwrite=True)
    assert (config.out / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("ends_in", ["save_weights", "save_checkpoint"])
def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(
    config: TrainConfig, ends_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, epochs=1, eval_every=0)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, ends_in, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(dataclasses.replace(config, seed=1))
    assert RunFolder(config.out).state(config) == "new"
    assert train(config).row["seed"] == config.seed
    assert RunFolder(config.out).state(config) == "finished"


@pytest.mark.parametrize("name", ["model.safetensors", "results.json", "metrics.jsonl"])
def test_files_of_others_are_not_taken_for_a_run_that_never_began(config: TrainConfig, name: str) -> None:
    config.out.mkdir()
    (config.out / name).write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        train(config)
    assert (config.out / name).read_text() == "mine"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_nothing_to_resume(config: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        train(config, resume=True)


@pytest.mark.parametrize("changes", [{"epochs": 5}, {"batch_size": 16}, {"width": 5}, {"momentum": 0.8}])
def test_a_run_goes_on_with_its_own_settings_only(config: TrainConfig, changes: dict) -> None:
    config = dataclasses.replace(config, epochs=1, eval_every=0)
    train(config)
    before = (config.out / "checkpoint.pt").read_bytes()
    name, value = next(iter(changes.items()))
    with pytest.raises(UserError, match=f"holds a run with {name} .*, not {value}"):
        train(dataclasses.replace(config, **changes), resume=True)
    assert (config.out / "checkpoint.pt").read_bytes() == before
    train(dataclasses.replace(config, workers=1), resume=True)


def test_a_batch_that_batchnorm_cannot_take_is_refused(config: TrainConfig) -> None:
    """Three stages of stride 2 leave one value a channel of one 8x8 digit."""
    with pytest.raises(UserError, match=r"a batch of one sample: .*more than one value a channel in training"):
        train(dataclasses.replace(config, model="preactresnet18", width=8, limit_train=1))


def test_a_loss_that_is_not_finite_ends_the_run(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="not finite in epoch 1"):
        train(dataclasses.replace(config, lr_max=1e38))
    assert torch.load(config.out / "checkpoint.pt", weights_only=True)["epoch"] == 0


def test_where_graphs_were_asked_for_and_cannot_be_a_warning_says_so(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, device="cpu", epochs=1)
    with pytest.warns(GraphWarning, match="graph: CUDA graphs are for CUDA devices, this run is on cpu: steps run op"):
        train(dataclasses.replace(config, graph="on"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(dataclasses.replace(config, graph="auto"), overwrite=True)


def test_wrong_devices_are_refused(config: TrainConfig) -> None:
    for name in ("tpu", "meta", "cuda:99", "cuda:x"):
        with pytest.raises(UserError, match="device"):
            train(dataclasses.replace(config, device=name))
    assert not config.out.exists()


@pytest.mark.parametrize(("given", "wanted"), [("auto", "reference"), ("native", "native")])
def test_auto_leaves_the_backend_to_the_process(config: TrainConfig, given: str, wanted: str) -> None:
    reason = dispatch.why_missing(wanted, config.device)
    if reason is not None:
        pytest.skip(reason)
    with ak.backend("reference"), setup.runtime(given, None, 0, torch.device(config.device)):
        assert dispatch.choose(torch.device(config.device)) == wanted


def test_the_number_of_threads_is_put_back(config: TrainConfig) -> None:
    threads = torch.get_num_threads()
    train(dataclasses.replace(config, epochs=1, threads=1 if threads > 1 else 2))
    assert torch.get_num_threads() == threads


def test_an_epoch_reads_the_device_once(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(name: str, method: Callable) -> Callable:
        return lambda *arguments: (reads.append(name), method(*arguments))[1]

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    epochs = []
    one_epoch = loop._epoch

    def recorded(*arguments: object) -> dict:
        reads.clear()
        entry = one_epoch(*arguments)
        epochs.append(list(reads))
        return entry

    monkeypatch.setattr(loop, "_epoch", recorded)
    train(dataclasses.replace(config, backend="reference", epochs=2, eval_every=0))
    assert epochs == [["tolist"], ["tolist"]]


def test_averaged_weights_are_evaluated_and_saved(config: TrainConfig) -> None:
    result = train(dataclasses.replace(config, weight_average=0.9))
    checkpoint = torch.load(config.out / "checkpoint.pt", map_location="cpu", weights_only=True)
    saved = load_file(config.out / "model.safetensors")
    assert saved.keys() == checkpoint["model"].keys()
    for name, average in checkpoint["average"].items():
        assert torch.equal(saved[name], average)
        assert torch.equal(result.model.state_dict()[name].cpu(), average)
    assert not torch.equal(saved["linear.weight"], checkpoint["model"]["linear.weight"])


def test_images_are_shrunk_in_the_first_epochs_and_never_in_an_evaluation(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, torch.Size]] = []
    make_model = setup.make_model

    def watched(*arguments: object) -> torch.nn.Module:
        model = make_model(*arguments)
        model.register_forward_pre_hook(lambda module, given: seen.append((module.training, given[0].shape[2:])))
        return model

    monkeypatch.setattr(setup, "make_model", watched)
    train(dataclasses.replace(config, resize_from=6, resize_epochs=3, graph="off"))
    training = [size for is_training, size in seen if is_training]
    assert training == [(6, 6)] * 18 + [(8, 8)] * 6  # three batches an epoch, each seen by attack and update
    assert {size for is_training, size in seen if not is_training} == {(8, 8)}


def test_images_cannot_be_shrunk_to_more_than_they_are(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="resize_from: wanted less than the images' 8 pixels, got 8"):
        train(dataclasses.replace(config, resize_from=8, resize_epochs=1))
    assert not config.out.exists()


@pytest.mark.parametrize("search", [False, True])
def test_cudnn_searches_in_training_alone(config: TrainConfig, search: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"training": set(), "evaluation": set()}

    def watching(kind: str, function: Callable) -> Callable:
        def watched(*arguments: object, **options: object) -> object:
            seen[kind].add((torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))
            return function(*arguments, **options)

        return watched

    monkeypatch.setattr(setup, "fast_step", watching("training", setup.fast_step))
    monkeypatch.setattr(loop, "evaluate", watching("evaluation", loop.evaluate))
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    train(dataclasses.replace(config, cudnn_search=search))
    assert seen == {"training": {(not search, search)}, "evaluation": {(True, False)}}
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What torch.compile was asked for, by a compiler that changes nothing."""
    graphs = []
    torch_compile = torch.compile

    def keep(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", lambda model, **options: torch_compile(model, backend=keep, **options))
    return graphs


def test_the_compiled_model_is_trained_and_the_files_are_as_without(
    config: TrainConfig, tmp_path: Path, compiled: list
) -> None:
    config = dataclasses.replace(config, epochs=2)
    train(config)
    assert not compiled
    train(dataclasses.replace(config, compile=True, out=tmp_path / "compiled"))
    assert compiled
    plain, other = (load_file(folder / "model.safetensors") for folder in (config.out, tmp_path / "compiled"))
    assert same(plain, other)


def test_behind_a_rehearsal_nothing_is_compiled(config: TrainConfig, compiled: list) -> None:
    """Two sizes of images, a smaller last batch, attack and update."""
    config = dataclasses.replace(config, compile=True, resize_from=6, resize_epochs=2)
    loop.rehearse(config, setup.make_data(config))
    assert len(compiled) == 8
    train(config)
    assert len(compiled) == 8


def test_the_time_to_set_up_is_in_the_first_epochs_metrics(config: TrainConfig) -> None:
    metrics = train(config).metrics
    assert ["setup_seconds" in entry for entry in metrics] == [True, False, False, False]
    assert metrics[0]["setup_seconds"] > 0


def test_a_rehearsal_leaves_nothing_behind(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, resize_from=6, resize_epochs=2, weight_average=0.9)
    train(config)
    digits = setup.make_data(config)
    state = torch.get_rng_state()
    loop.rehearse(config, digits)
    assert torch.equal(torch.get_rng_state(), state)
    train(dataclasses.replace(config, out=tmp_path / "again"))
    assert same(*(load_file(tmp_path / name / "model.safetensors") for name in ("run", "again")))
