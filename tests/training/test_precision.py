"""What a model computes with: policies, loss scale, the attack's gradients in float16, refusals, whole runs."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import advkernels as ak
from freefast import Precision, ThreatModel, TrainConfig, UserError, attacks, data, evaluate, models, train
from freefast.attacks import functional
from freefast.attacks.ball import Ball
from freefast.attacks.gradient import input_gradient
from freefast.attacks.health import GradientHealth, GradientWarning, Health
from freefast.attacks.losses import cross_entropy
from freefast.attacks.problem import Problem
from freefast.evaluation import Evaluation
from freefast.precision import PRECISIONS
from freefast.training.captured import CapturedStep
from freefast.training.schedules import Scheduler
from freefast.training.standard import standard_step
from freefast.training.state import TrainState

HALVES = [name for name in PRECISIONS if name != "fp32"]


class Faint(nn.Module):
    """Two classes whose logits part by `slope` times the sum of the pixels: the gradient is that small everywhere."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.slope.to(x.dtype)).flatten(1).sum(1)
        return torch.stack([total, -total], 1)


class Line(nn.Linear):
    """A linear classifier of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def cnn(device: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build("small_cnn", 10, 1, width=4).to(device)


def state_of(model: nn.Module, precision: Precision, device: str, lr: float = 0.1) -> TrainState:
    optimizer = ak.MasterSGD(model.parameters(), lr, momentum=0.9, master_weights=precision.master_weights)
    return TrainState(
        model=model, optimizer=optimizer,
        scheduler=Scheduler(optimizer, [lr]),
        threat=ThreatModel(epsilon=0.1), rng=ak.PhiloxState(0, device), precision=precision,
        delta=torch.zeros(4, 1, 8, 8, device=device),
    )  # fmt: skip


def batch(device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 1, 8, 8, generator=generator).to(device), torch.tensor([0, 1, 2, 3], device=device)


@pytest.mark.parametrize("name", PRECISIONS)
def test_dtypes_of_weights_statistics_and_logits(name: str, device: str) -> None:
    precision = Precision(name=name)
    model = precision.prepare(cnn(device))
    for module in model.modules():
        kept = isinstance(module, nn.BatchNorm2d) or not precision.is_half
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                assert tensor.dtype == (torch.float32 if kept else precision.dtype)
    seen = []
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    logits = precision.logits(model, batch(device)[0])
    assert seen == [precision.dtype]
    assert logits.dtype == torch.float32


def test_statistics_keep_their_bits_when_weights_are_halved(device: str) -> None:
    model = cnn(device)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.fill_(0.1)
    Precision(name="half-bf16").prepare(model)
    assert all(torch.equal(norm.running_mean, torch.full_like(norm.running_mean, 0.1)) for norm in norms)


@pytest.mark.parametrize("name", HALVES)
def test_logits_are_close_to_float32(name: str, device: str) -> None:
    precision, (x, _) = Precision(name=name), batch(device)
    expected = cnn(device).eval()(x)
    got = precision.logits(precision.prepare(cnn(device)).eval(), x)
    # five layers of rounding, each to 2^-8 or 2^-11 of values of that size
    bound = 8 * torch.finfo(precision.dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["fp32", "half-bf16", "half-fp16"])
def test_a_models_weights_say_how_it_computes(name: str, device: str) -> None:
    """Attack and evaluation of a half-precision model need no word about it."""
    precision = Precision(name=name)
    model = precision.prepare(cnn(device)).eval()
    assert Precision.of(model) == precision
    images, labels = batch(device)
    arguments = {"eps": 0.1, "alpha": 0.1, "steps": 2, "random_start": False}
    told = attacks.PGD(model, **arguments, precision=precision)(images, labels)
    assert told.dtype == torch.float32
    assert torch.equal(attacks.PGD(model, **arguments)(images, labels), told)
    digits = data.load("digits", limit_train=1, limit_test=20)
    scores = [
        evaluate(model, digits, ThreatModel(epsilon=0.1), steps=(1,), device=device, precision=given)
        for given in (None, precision)
    ]
    assert scores[0].as_row() == scores[1].as_row()


@pytest.mark.parametrize("samples", [1, 4, 128, 1000])
def test_the_attacks_scale_is_a_power_of_two(samples: int) -> None:
    scale = Precision(name="half-fp16").attack_scale(samples)
    assert torch.frexp(torch.tensor(scale)).mantissa == 0.5
    assert 2**8 <= scale / samples < 2**9
    assert all(Precision(name=name).attack_scale(samples) == 1 for name in ("fp32", "amp-bf16", "half-bf16"))


@pytest.mark.parametrize("name", ["half-fp16", "amp-fp16"])
def test_a_float16_attack_moves_every_pixel_where_gradients_are_1e_8(name: str, device: str) -> None:
    precision = Precision(name=name)
    model = precision.prepare(Faint(2.0**-23).to(device))  # a number of float16: the weights are no part of this test
    x, labels = torch.full((4, 3, 8, 8), 0.5, device=device), torch.tensor([0, 1, 0, 1], device=device)
    losses = partial(cross_entropy, labels=labels)
    gradient, _ = input_gradient(Faint(2.0**-23).to(device), x, losses)
    assert gradient.abs().min() > 1e-9
    assert gradient.abs().max() < 1e-7
    ball = Ball.of(ThreatModel(epsilon=0.1))
    problem = Problem(model=model, x=x, labels=labels, ball=ball, precision=precision)
    adversarial = functional.pgd(problem, alpha=[0.1], steps=1, rng=None, stop_when_fooled=False)
    direction = torch.tensor([-0.1, 0.1, -0.1, 0.1], device=device).view(-1, 1, 1, 1)
    torch.testing.assert_close(adversarial, x + direction)


def test_the_same_gradients_vanish_unscaled(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scale is for: without it the test above would see no pixel move."""
    precision = Precision(name="half-fp16")
    monkeypatch.setattr(Precision, "attack_scale", lambda self, samples: 1.0)
    x, labels = torch.full((4, 3, 8, 8), 0.5, device=device), torch.tensor([0, 1, 0, 1], device=device)
    gradient, _ = input_gradient(
        precision.prepare(Faint(2.0**-23).to(device)), x, partial(cross_entropy, labels=labels), precision
    )
    assert not gradient.any()


def test_health_counts_zeros_and_what_is_not_finite(device: str) -> None:
    health = GradientHealth(torch.device(device))
    health.add(torch.tensor([0.0, -0.0, 1.0, float("nan")], device=device))
    health.add(torch.tensor([float("inf"), 1.0, 0.0, 1.0], device=device))
    assert health.take() == Health(zero_share=3 / 8, nonfinite=2)
    assert health.take() == Health(zero_share=0.0, nonfinite=0)


def test_health_warns() -> None:
    with pytest.warns(GradientWarning, match="PGD-10: 51% of the gradients' elements are exactly zero"):
        Health(zero_share=0.51, nonfinite=0).warn("PGD-10")
    with pytest.warns(GradientWarning, match="PGD-10: 7 elements of gradients not finite"):
        Health(zero_share=0.5, nonfinite=7).warn("PGD-10")


@pytest.mark.filterwarnings("error")
def test_health_is_silent_where_all_is_well() -> None:
    Health(zero_share=0.5, nonfinite=0).warn("PGD-10")


@pytest.mark.parametrize(("loss_scale", "after"), [("dynamic", 2.0**15), ("1024", 1024.0)])
def test_an_overflow_leaves_the_weights_and_the_scale_reacts(loss_scale: str, after: float, device: str) -> None:
    precision = Precision(name="half-fp16", loss_scale=loss_scale)
    state = state_of(precision.prepare(cnn(device)), precision, device)
    images, labels = batch(device)
    standard_step(state, images, labels)
    before = [param.detach().clone() for param in state.model.parameters()]
    scale = state.scaler.get_scale()
    overflow = next(state.model.parameters()).register_hook(lambda grad: grad * float("inf"))
    standard_step(state, images, labels)
    overflow.remove()
    assert all(map(torch.equal, before, state.model.parameters()))
    assert state.scaler.get_scale() == (scale / 2 if loss_scale == "dynamic" else after)
    standard_step(state, images, labels)
    assert not any(map(torch.equal, before, state.model.parameters()))


def test_fixed_scale_brings_back_small_gradients(device: str) -> None:
    """float16 gradients below 3e-8 are lost without a loss scale and count with one."""
    images, labels = torch.full((4, 1, 8, 8), 2.0**-14, device=device), torch.zeros(4, dtype=torch.int64, device=device)
    moved = {}
    for loss_scale in ("none", "65536"):
        precision = Precision(name="half-fp16", loss_scale=loss_scale)
        model = Line(64, 10).to(device)
        with torch.no_grad():
            model.weight.zero_(), model.bias.zero_()
            model.bias[0] = 8.0  # nearly right: gradients of 3e-4 / 10 at the logits
        state = state_of(precision.prepare(model), precision, device)
        standard_step(state, images, labels)
        moved[loss_scale] = state.optimizer.state[model.weight]["master"].count_nonzero().item()
    # without, only the weights of the true class: their gradients are those of the nine others together
    assert moved == {"none": 64, "65536": 640}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp8"}, "precision: wanted one of fp32, amp-bf16"),
        ({"master_weights": True}, "master_weights: is of half-bf16 and half-fp16, got it for fp32"),
        ({"precision": "amp-bf16", "master_weights": False}, "master_weights: is of half-bf16 and half-fp16"),
        (
            {"precision": "half-bf16", "loss_scale": "big"},
            "loss_scale: wanted none, dynamic or a float32 number above 0, got big",
        ),
        ({"loss_scale": 1e39}, "loss_scale: wanted none, dynamic or a float32 number above 0, got 1e\\+39"),
        ({"loss_scale": "1e-46"}, "loss_scale: wanted none, dynamic or a float32 number above 0"),
        ({"loss_scale": "-1"}, "loss_scale: wanted none, dynamic or a float32 number above 0"),
    ],
)
def test_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(method="fast", **settings)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ("fp32", None, "none")),
        ({"precision": "amp-fp16"}, ("amp-fp16", None, "dynamic")),
        ({"precision": "half-bf16"}, ("half-bf16", True, "none")),
        ({"precision": "half-fp16"}, ("half-fp16", True, "dynamic")),
        ({"precision": "half-bf16", "loss_scale": 1024}, ("half-bf16", True, "1024")),
        ({"precision": "half-bf16", "loss_scale": "1024.0"}, ("half-bf16", True, "1024")),
        ({"precision": "report"}, ("half-fp16", False, "none")),
        ({"precision": "report", "master_weights": True}, ("half-fp16", True, "none")),
    ],
)
def test_settings_left_open(given: dict, wanted: tuple) -> None:
    config = TrainConfig(method="fast", **given)
    assert (config.precision, config.master_weights, config.loss_scale) == wanted
    assert TrainConfig.from_json(config.as_json()) == config


def test_what_a_device_cannot_do_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("convolution not implemented for 'Half'\nmore")

    monkeypatch.setattr(type(models.build("small_cnn", 10, 1)), "forward", refuse)
    config = TrainConfig(method="fast", precision="half-fp16", device="cpu", limit_train=8, out=tmp_path / "run")
    message = "precision: half-fp16 with loss scale dynamic does not run on cpu: convolution not implemented for 'Half'"
    with pytest.raises(UserError, match=f"^{message}$"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("method", ["free", "fast", "pgd", "standard"])
def test_every_method_trains(method: str, name: str, tmp_path: Path, device: str) -> None:
    config = TrainConfig(
        method=method, precision=name, width=4, limit_train=64, limit_test=16, batch_size=32, epochs=2,
        eval_steps=(1,), device=device, out=tmp_path / "run",
    )  # fmt: skip
    result = train(config)
    assert result.row["precision"] == result.row["evaluated_in"] == name
    assert result.row["loss_scale"] == ("dynamic" if name.endswith("fp16") else "none")
    entry = result.metrics[-1]
    assert ("loss_scale" in entry) == name.endswith("fp16")
    if method != "standard":
        assert entry["zero_gradients"] < 0.5
        assert entry["nonfinite_gradients"] == 0


def test_evaluations_compute_in_a_precision_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-precision weights, evaluated in float32 during and after training; what is kept and returned stays half."""
    seen = []

    def watched(model: nn.Module, *args: object, precision: Precision, **options: object) -> Evaluation:
        seen.append(({parameter.dtype for parameter in model.parameters()}, precision.name))
        return evaluate(model, *args, precision=precision, **options)

    monkeypatch.setattr("freefast.training.loop.evaluate", watched)
    config = small_run(tmp_path, precision="half-bf16", evaluate_in="fp32", eval_every=1, curve_steps=(1,))
    result = train(config)
    assert seen == [({torch.float32}, "fp32")] * 2
    assert (result.row["precision"], result.row["evaluated_in"]) == ("half-bf16", "fp32")
    assert torch.bfloat16 in {parameter.dtype for parameter in result.model.parameters()}
    with pytest.raises(UserError, match=r"evaluate_in: wanted one of fp32, .*, got 'report'"):
        TrainConfig(method="fast", evaluate_in="report")


@pytest.mark.parametrize("change", [{"name": "half"}, {"name": "fp16"}, {"loss_scale": "banana"}, {"loss_scale": "0"}])
def test_precision_refuses(change: dict) -> None:
    with pytest.raises(UserError, match="wanted"):
        Precision(**change)


def small_run(tmp_path: Path, **settings: object) -> TrainConfig:
    return TrainConfig(
        method="fast", width=4, limit_train=64, limit_test=16, batch_size=32, epochs=2, eval_steps=(1,), device="cpu",
        out=tmp_path / "run", **settings,
    )  # fmt: skip


def test_updates_that_a_scale_leaves_out_are_counted_and_warned_of(tmp_path: Path) -> None:
    with pytest.warns(GradientWarning, match="2 of 2 updates left out: gradients overflow, the loss scale is now 1e"):
        result = train(small_run(tmp_path, precision="half-fp16", loss_scale=1e9))
    assert [entry["skipped_updates"] for entry in result.metrics] == [2, 2]
    good = train(small_run(tmp_path / "good", precision="half-fp16", loss_scale=128))
    assert [entry["skipped_updates"] for entry in good.metrics] == [0, 0]


def test_training_and_evaluation_warn_of_gradients_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientHealth, "add", lambda self, gradient: self.counts.add_(torch.tensor([4, 3, 1])))
    with pytest.warns(GradientWarning) as caught:
        train(small_run(tmp_path))
    texts = [str(warning.message) for warning in caught]
    for attack in ("fast, epoch 1", "fast, epoch 2", "PGD-1"):
        assert any(text.startswith(f"{attack}: 75% of the gradients' elements are exactly zero") for text in texts)
        assert any(text.startswith(attack) and text.endswith("elements of gradients not finite") for text in texts)


def test_a_scaled_run_resumes_to_the_same_bits(tmp_path: Path, device: str) -> None:
    config = TrainConfig(
        method="fast", precision="half-fp16", width=4, limit_train=64, limit_test=16, batch_size=32, epochs=2,
        eval_steps=(1,), device=device, out=tmp_path / "whole",
    )  # fmt: skip
    whole = train(config)
    parted = dataclasses.replace(config, out=tmp_path / "parted")
    call, calls = CapturedStep.__call__, iter(range(100))

    def interrupted(self: CapturedStep, count: int) -> None:
        if next(calls) == 3:  # in the second epoch
            raise KeyboardInterrupt
        call(self, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CapturedStep, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(parted)
    resumed = train(parted, resume=True)
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert whole.metrics[-1]["loss_scale"] == resumed.metrics[-1]["loss_scale"]
