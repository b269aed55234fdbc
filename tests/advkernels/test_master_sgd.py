"""MasterSGD as an optimizer: scaled gradients and skipped steps, states and copies, groups, schedules, refusals."""

import copy
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advkernels as ak

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALED = {"cpu": DTYPES, "cuda": (torch.float32, torch.float16)}  # whose gradients torch's GradScaler takes there
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SETTINGS = [
    {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.0, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.3, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.0, "nesterov": True},
]
SCALED_SCHEDULES, DIRECT_SCHEDULES = 300, 700  # on every backend

pytestmark = pytest.mark.usefixtures("one_thread")


class Rule:
    """What MasterSGD keeps of a parameter, by its rule in plain PyTorch, one rounding an operation."""

    def __init__(
        self, param: Tensor, lr: float, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False, maximize: bool = False, master_weights: bool = True,
    ) -> None:  # fmt: skip
        self.dtype = param.dtype
        self.state_dtype = torch.float32 if master_weights else param.dtype
        self.weight = param.detach().to(self.state_dtype, copy=True)
        self.buffer = torch.zeros_like(self.weight)
        self.updates = 0
        self.lr, self.momentum, self.dampening, self.weight_decay = lr, momentum, dampening, weight_decay
        self.nesterov, self.maximize = nesterov, maximize

    def step(self, grad: Tensor, scale: float = 1.0) -> None:
        w, g = self.weight.float(), grad.float() * torch.tensor(1 / scale, device=grad.device)
        g = -g if self.maximize else g
        g = g + self.weight_decay * w if self.weight_decay else g
        if self.momentum:
            b = g if self.updates == 0 else self.momentum * self.buffer.float() + (1 - self.dampening) * g
            g = g + self.momentum * b if self.nesterov else b
            self.buffer = b.to(self.state_dtype)
        self.weight = (w - self.lr * g).to(self.state_dtype)
        self.updates += 1

    def check(self, optimizer: ak.MasterSGD, param: Tensor) -> None:
        """The parameter and its state have these bits."""
        state = optimizer.state[param]
        masters = self.state_dtype != self.dtype
        assert same_bits(param, self.weight.to(self.dtype))
        assert same_bits(state["master"], self.weight) if masters else state["master"].numel() == 0
        assert same_bits(state["momentum_buffer"], self.buffer) if self.momentum else True
        assert int(state["step"]) == self.updates


def same_bits(one: Tensor, other: Tensor) -> bool:
    bits = BITS[one.element_size()]
    return one.dtype == other.dtype and torch.equal(one.detach().view(bits), other.detach().view(bits))


def parameters(device: str, *dtypes: torch.dtype, shape: tuple[int, ...] = (17,), seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype)) for dtype in dtypes]


def give_gradients(params: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param).mul_(scale)


def copies(params: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(param.detach().clone()) for param in params]


def backward(params: list[nn.Parameter], coefficients: list[Tensor], scaler: torch.amp.GradScaler) -> None:
    """Gradients: the coefficients times the scale, in the parameters' dtypes."""
    for param in params:
        param.grad = None
    loss = sum((p.to(c.device).float() * c).sum() for p, c in zip(params, coefficients, strict=True))
    scaler.scale(loss).backward()


class Schedule:
    """Random parameters, settings and steps, finite or overflowing; with an odd seed the first one overflows."""

    def __init__(self, seed: int, device: str, dtypes: tuple[torch.dtype, ...]) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device
        choose = self.random.choice
        drawn = [choose(dtypes) for _ in range(choose((1, 2, 3)))]
        self.params = [nn.Parameter(self.draw(choose(((), (1,), (5,), (2, 3)))).to(dtype)) for dtype in drawn]
        momentum, dampening = choose((0.0, 0.5, 0.9)), choose((0.0, 0.3))
        self.settings: dict[str, Any] = {
            "lr": 0.1, "momentum": momentum, "dampening": dampening, "weight_decay": choose((0.0, 0.01)),
            "nesterov": momentum > 0 and dampening == 0 and choose((False, True)),
            "maximize": choose((False, True)), "master_weights": choose((False, True)),
        }  # fmt: skip
        self.scale = choose((1.0, 3.0, 1000.0, 1024.0))
        self.finite = [seed % 2 == 0] + [choose((False, True)) for _ in range(choose(range(8)))]
        self.optimizer = ak.MasterSGD(self.params, **self.settings)
        self.rules = [Rule(param, **self.settings) for param in self.params]

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        return (4 * torch.rand(shape, generator=self.generator) - 2).to(self.device)

    def coefficients(self, finite: bool) -> list[Tensor]:
        """Gradients before the scale, one of them not finite somewhere unless `finite`."""
        drawn = [self.draw(param.shape) for param in self.params]
        if not finite:
            flat = self.random.choice(drawn).view(-1)
            flat[self.random.randrange(flat.numel())] = self.random.choice((torch.inf, -torch.inf, torch.nan))
        return drawn

    def snapshot(self) -> list[dict[str, Tensor]]:
        """Every parameter's tensors; what a first step is to make as it has to be."""
        result = []
        for param, rule in zip(self.params, self.rules, strict=True):
            state = self.optimizer.state.get(param) or {
                "master": param.detach().float() if rule.state_dtype != param.dtype else param.new_empty(0).float(),
                "momentum_buffer": rule.buffer if rule.momentum else param.new_empty(0, dtype=rule.state_dtype),
                "step": torch.zeros((), dtype=torch.int64, device=param.device),
            }
            result.append({"param": param, **state})
        return [{name: tensor.detach().clone() for name, tensor in tensors.items()} for tensors in result]

    def run(self, step: Callable[[list[Tensor], bool], float]) -> None:
        """Every step; after one that overflows nothing has changed, after all the state is that of the others alone."""
        for finite in self.finite:
            before = self.snapshot()
            scale = step(self.coefficients(finite), finite)
            if finite:
                for param, rule in zip(self.params, self.rules, strict=True):
                    rule.step(param.grad, scale)
            else:
                for one, other in zip(before, self.snapshot(), strict=True):
                    assert one.keys() == other.keys()
                    assert all(same_bits(one[name], other[name]) for name in one)
        for param, rule in zip(self.params, self.rules, strict=True):
            rule.check(self.optimizer, param)


def test_overflowing_steps_leave_no_trace_with_a_grad_scaler(device: str, backend: str) -> None:
    for seed in range(SCALED_SCHEDULES):
        schedule = Schedule(seed, device, SCALED[device])
        scaler = torch.amp.GradScaler(device, init_scale=schedule.scale, growth_interval=2)

        def step(
            coefficients: list[Tensor], finite: bool, schedule: Schedule = schedule, scaler: Any = scaler
        ) -> float:
            backward(schedule.params, coefficients, scaler)
            scale = scaler.get_scale()
            scaler.step(schedule.optimizer)
            scaler.update()
            assert (scaler.get_scale() < scale) is not finite
            return scale

        schedule.run(step)


def test_overflowing_steps_leave_no_trace_with_scale_and_found_inf_set(device: str, backend: str) -> None:
    for seed in range(DIRECT_SCHEDULES):
        schedule = Schedule(seed, device, DTYPES)

        def step(coefficients: list[Tensor], finite: bool, schedule: Schedule = schedule) -> float:
            unscaled, found = schedule.random.random() < 0.3, 0 if finite else schedule.random.choice((1, 2))
            scale, optimizer = 1.0 if unscaled else schedule.scale, schedule.optimizer
            for param, coefficient in zip(schedule.params, coefficients, strict=True):
                param.grad = (scale * coefficient).to(param.dtype)
            optimizer.grad_scale = None if unscaled else torch.tensor(scale, device=device)
            optimizer.found_inf = torch.tensor(float(found), device=device)
            optimizer.step()
            return scale

        schedule.run(step)


@pytest.fixture
def fresh_memory_is_nan() -> Iterator[None]:
    """torch.empty gives NaN, so that it shows where memory that nobody wrote is read."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def after_a_skipped_first_step(
    kind: Callable[..., torch.optim.Optimizer], device: str, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and momentum after a step that overflows and one with the gradient, from a weight of 0."""
    param = nn.Parameter(torch.zeros_like(gradient))
    optimizer = kind([param], lr=1.0, momentum=0.5, dampening=0.5)
    scaler = torch.amp.GradScaler(device, init_scale=1.0)
    for coefficients in (torch.full_like(gradient, torch.inf), gradient):
        backward([param], [coefficients], scaler)
        scaler.step(optimizer)
        scaler.update()
    return param.detach(), optimizer.state[param]["momentum_buffer"]


@pytest.mark.usefixtures("fresh_memory_is_nan")
def test_update_after_a_skipped_first_step_is_the_first(device: str, backend: str) -> None:
    """torch.optim.SGD(fused=True) instead goes on from a momentum buffer that the skipped step left unwritten.

    A first update has no dampening. Fused SGD allocates the buffer (torch.empty_like), skips, and counts the buffer as
    an initialised one: the next update is momentum * (whatever the memory held) + (1 - dampening) g, and not g.
    """
    gradient = torch.tensor([1.0, -2.0, 0.5], device=device)
    weight, momentum = after_a_skipped_first_step(ak.MasterSGD, device, gradient)
    assert torch.equal(weight, -gradient)
    assert torch.equal(momentum, gradient)

    def fused(*args: Any, **settings: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(*args, fused=True, **settings)

    weight, momentum = after_a_skipped_first_step(fused, device, gradient)
    if torch.equal(weight, -gradient) and torch.equal(momentum, gradient):
        warnings.warn(f"torch {torch.__version__} has mended a skipped first step of fused SGD", stacklevel=1)
    else:
        unwritten, zeros = weight.isnan().all(), torch.equal(weight, -0.5 * gradient)
        assert unwritten or zeros


def test_gradients_unscaled_before_the_step(device: str, backend: str) -> None:
    """scaler.unscale_ and clipping: the step takes the gradients as they are, and skips what unscale_ found."""
    half = torch.bfloat16 if device == "cpu" else torch.float32  # unscale_ takes no float16
    params = parameters(device, torch.float32, half)
    optimizer = ak.MasterSGD(params, lr=0.1, momentum=0.9, dampening=0.3)
    rules = [Rule(param, lr=0.1, momentum=0.9, dampening=0.3) for param in params]
    scaler = torch.amp.GradScaler(device, init_scale=1000.0)
    for update in range(4):
        coefficients = [torch.randn_like(param, dtype=torch.float32) for param in params]
        if update % 2 == 0:
            coefficients[1][3] = torch.nan
        backward(params, coefficients, scaler)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(params, 0.5)
        scaler.step(optimizer)
        scaler.update()
        if update % 2:
            for param, rule in zip(params, rules, strict=True):
                rule.step(param.grad)
    for param, rule in zip(params, rules, strict=True):
        rule.check(optimizer, param)


def test_scaled_step_without_gradients_changes_nothing(device: str, backend: str) -> None:
    """GradScaler's found_inf is then no tensor."""
    (param,) = parameters(device, torch.float16)
    before = param.detach().clone()
    optimizer = ak.MasterSGD([param], lr=0.1)
    scaler = torch.amp.GradScaler(device)
    scaler.scale(torch.ones((), device=device))
    scaler.step(optimizer)
    assert same_bits(param, before)
    assert len(optimizer.state) == 0


@pytest.mark.parametrize("power", [-10, 1, 16])
def test_scale_of_a_power_of_two_changes_no_bit(power: int, device: str, backend: str) -> None:
    scaled = parameters(device, torch.float32, shape=(999,))
    plain = copies(scaled)
    optimizers = [ak.MasterSGD(ps, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True) for ps in (scaled, plain)]
    optimizers[0].grad_scale = torch.tensor(2.0**power, device=device)
    for update in range(3):
        give_gradients(scaled, update, scale=2.0**power)
        given = scaled[0].grad.clone()
        give_gradients(plain, update)
        for optimizer in optimizers:
            optimizer.step()
        assert same_bits(scaled[0].grad, given)
    assert same_bits(scaled[0], plain[0])
    assert same_bits(*(o.state[p]["momentum_buffer"] for o, (p,) in zip(optimizers, (scaled, plain), strict=True)))


def test_scale_may_have_another_dtype_and_shape(device: str, backend: str) -> None:
    (param,) = parameters(device, torch.float16, shape=())
    rule = Rule(param, lr=0.1)
    optimizer = ak.MasterSGD([param], lr=0.1)
    optimizer.grad_scale = torch.tensor([3.0], dtype=torch.float64, device=device)
    optimizer.found_inf = torch.tensor([False], device=device)
    give_gradients([param], 0)
    rule.step(param.grad, 3.0)
    optimizer.step()
    rule.check(optimizer, param)


def near(one: Tensor, other: Tensor) -> bool:
    """torch fuses some products and sums: after 8 updates at most 1e-6 of the largest number apart."""
    return bool((one - other).abs().max() <= 1e-6 * other.abs().max())


def together(optimizers: list[torch.optim.Optimizer], params: list[list[nn.Parameter]], updates: range) -> None:
    """The same gradients to all."""
    for update in updates:
        for ps, optimizer in zip(params, optimizers, strict=True):
            give_gradients(ps, update)
            optimizer.step()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("to_torch", [True, False])
def test_state_goes_to_torch_sgd_and_comes_from_it(
    setting: dict[str, Any], to_torch: bool, device: str, backend: str
) -> None:
    first = parameters(device, torch.float32, torch.float32, shape=(64, 33))
    kinds = (ak.MasterSGD, torch.optim.SGD) if to_torch else (torch.optim.SGD, ak.MasterSGD)
    giver = kinds[0](first, lr=0.05, weight_decay=1e-3, maximize=True, **setting)
    together([giver], [first], range(3))
    second = copies(first)
    taker = kinds[1](second, lr=1.0)
    taker.load_state_dict(copy.deepcopy(giver.state_dict()))  # torch's would share the buffers
    assert {**taker.param_groups[0], **setting, "lr": 0.05, "maximize": True} == taker.param_groups[0]
    together([giver, taker], [first, second], range(3, 8))
    for one, other in zip(first, second, strict=True):
        assert near(one, other)
        if setting["momentum"]:
            assert near(giver.state[one]["momentum_buffer"], taker.state[other]["momentum_buffer"])


def test_torch_sgd_takes_a_state_of_skipped_steps(device: str, backend: str) -> None:
    """What no update has written is not in the state dict: torch.optim.SGD would take it for a momentum."""
    (ours,) = parameters(device, torch.float32)
    optimizer = ak.MasterSGD([ours], lr=0.5, momentum=0.5, dampening=0.25)
    optimizer.found_inf = torch.ones((), device=device)
    give_gradients([ours], 0)
    optimizer.step()
    theirs = copies([ours])
    other = torch.optim.SGD(theirs, lr=1.0)
    other.load_state_dict(optimizer.state_dict())
    before = ours.detach().clone()
    give_gradients(theirs, 1)
    other.step()
    assert torch.equal(theirs[0].detach(), before - 0.5 * theirs[0].grad)


@pytest.mark.parametrize("master_weights", [True, False])
def test_half_precision_momentum_of_torch_sgd(master_weights: bool, device: str, backend: str) -> None:
    theirs = parameters(device, torch.bfloat16)
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    together([optimizer], [theirs], range(2))
    ours = copies(theirs)
    follower = ak.MasterSGD(ours, lr=1.0, master_weights=master_weights)
    follower.load_state_dict(optimizer.state_dict())
    rule = Rule(ours[0], lr=0.1, momentum=0.9, master_weights=master_weights)
    rule.buffer, rule.updates = optimizer.state[theirs[0]]["momentum_buffer"].to(rule.state_dtype), 1
    for update in range(2, 5):
        give_gradients(ours, update)
        rule.step(ours[0].grad)
        follower.step()
    rule.check(follower, ours[0])


def test_state_may_change_in_a_load_hook(device: str, backend: str) -> None:
    """As torch's documentation has it for parameters in another order; masters keep their float32."""
    first = parameters(device, torch.bfloat16, torch.bfloat16)
    optimizer = ak.MasterSGD(first, lr=0.1, momentum=0.9)
    together([optimizer], [first], range(2))
    second = copies(first[::-1])
    other = ak.MasterSGD(second, lr=0.1)
    other.register_load_state_dict_pre_hook(
        lambda _, given: {**given, "state": {index: given["state"][1 - index] for index in range(2)}}
    )
    other.load_state_dict(optimizer.state_dict())
    for one, two in zip(first, second[::-1], strict=True):
        for name in ("master", "momentum_buffer", "step"):
            assert same_bits(optimizer.state[one][name], other.state[two][name])


def test_state_of_half_precision_comes_back_from_torch_sgd(device: str, backend: str) -> None:
    """torch.optim.SGD hands on the masters that it found, but updates weights that they know nothing of."""
    (param,) = parameters(device, torch.bfloat16)
    ours, theirs = ak.MasterSGD([param], lr=0.1, momentum=0.9), torch.optim.SGD([param], lr=0.1, momentum=0.9)
    together([ours], [[param]], range(2))
    theirs.load_state_dict(ours.state_dict())
    together([theirs], [[param]], range(2, 4))
    follower = ak.MasterSGD([param], lr=1.0)
    follower.load_state_dict(theirs.state_dict())
    rule = Rule(param, lr=0.1, momentum=0.9)
    rule.buffer, rule.updates = theirs.state[param]["momentum_buffer"].float(), 2
    give_gradients([param], 4)
    rule.step(param.grad)
    follower.step()
    rule.check(follower, param)


def test_updates_go_on_from_what_is_written_into_a_parameter(device: str, backend: str) -> None:
    """Elements that are still what was rounded from their masters keep them."""
    (param,) = parameters(device, torch.bfloat16)
    optimizer, rule = ak.MasterSGD([param], lr=0.1), Rule(param, lr=0.1)
    for update in range(3):
        give_gradients([param], update)
        rule.step(param.grad)
        optimizer.step()
    with torch.no_grad():
        param[::2] = 5.0
    rule.weight[::2] = 5.0
    give_gradients([param], 3)
    rule.step(param.grad)
    optimizer.step()
    rule.check(optimizer, param)


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_of_older_optimizers_lack_settings(dtype: torch.dtype, device: str, backend: str) -> None:
    """torch before 1.13 and apex's FusedSGD save no maximize: this optimizer's own holds."""
    params = parameters(device, dtype)
    state = torch.optim.SGD(copies(params), lr=0.25, momentum=0.5).state_dict()
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "params")
    state["param_groups"] = [{name: group[name] for name in names} for group in state["param_groups"]]
    optimizer, rule = ak.MasterSGD(params, maximize=True), Rule(params[0], lr=0.25, momentum=0.5, maximize=True)
    optimizer.load_state_dict(state)
    give_gradients(params, 0)
    rule.step(params[0].grad)
    optimizer.step()
    rule.check(optimizer, params[0])


def test_hooks_behind_a_load_see_and_change_what_was_loaded(device: str, backend: str) -> None:
    first = parameters(device, torch.bfloat16)
    optimizer = ak.MasterSGD(first, lr=0.1, momentum=0.9)
    together([optimizer], [first], range(2))
    second = copies(first)
    follower = ak.MasterSGD(second, lr=0.1)

    def forget(loaded: torch.optim.Optimizer) -> None:
        state = loaded.state[second[0]]
        assert same_bits(state["master"], optimizer.state[first[0]]["master"])
        state["momentum_buffer"].zero_()

    follower.register_load_state_dict_post_hook(forget)
    follower.load_state_dict(optimizer.state_dict())
    assert not follower.state[second[0]]["momentum_buffer"].any()


def test_another_default_device_changes_nothing(device: str, backend: str) -> None:
    params = parameters(device, torch.bfloat16, torch.float32)
    optimizer, rules = ak.MasterSGD(params, lr=0.1), [Rule(param, lr=0.1) for param in params]
    give_gradients(params, 0)
    for rule, param in zip(rules, params, strict=True):
        rule.step(param.grad)
    with torch.device("meta"):
        optimizer.step()
    for rule, param in zip(rules, params, strict=True):
        rule.check(optimizer, param)


def test_learning_rate_of_one_number_in_any_shape(device: str, backend: str) -> None:
    params = parameters(device, torch.bfloat16)
    give_gradients(params, 0)
    rule = Rule(params[0], lr=0.5)
    rule.step(params[0].grad)
    optimizer = ak.MasterSGD(params, lr=torch.tensor([0.5]))
    optimizer.step()
    rule.check(optimizer, params[0])
    assert ak.MasterSGD(params).defaults["lr"] == torch.optim.SGD(params).defaults["lr"]


def test_compiled_steps(device: str, backend: str) -> None:
    params = parameters(device, torch.bfloat16, torch.float32)
    optimizer, rules = ak.MasterSGD(params, lr=0.1, momentum=0.9), [Rule(p, lr=0.1, momentum=0.9) for p in params]
    compiled = torch.compile(optimizer.step)
    for update, step in enumerate((compiled, compiled, optimizer.step, compiled, compiled)):
        give_gradients(params, update)
        for rule, param in zip(rules, params, strict=True):
            rule.step(param.grad)
        step()
    for rule, param in zip(rules, params, strict=True):
        rule.check(optimizer, param)


@pytest.mark.gpu
def test_a_first_update_is_not_captured() -> None:
    params = parameters("cuda", torch.bfloat16)
    give_gradients(params, 0)
    optimizer = ak.MasterSGD(params, lr=0.5, momentum=0.9)
    with (
        pytest.raises(RuntimeError, match="MasterSGD: state: wanted an update before a CUDA graph captures one"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        optimizer.step()
    optimizer.step()


def train(model: nn.Module, optimizer: ak.MasterSGD, seed: int) -> None:
    """A few updates of a small classifier under a loss scale; the first of them overflows."""
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, init_scale=2.0**20)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(12):
        x = torch.randn(6, 5, generator=generator).to(device, torch.float16)
        optimizer.zero_grad()
        scaler.scale(model(x).float().square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()


def pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_go_on_bit_for_bit(duplicate: Callable[[Any], Any], device: str, backend: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).to(device, torch.float16)
    optimizer = ak.MasterSGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1, weight_decay=5e-4)
    train(model, optimizer, seed=0)
    other, follower = duplicate((model, optimizer))
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    assert all(one is two for one, two in zip(follower.param_groups[0]["params"], other.parameters(), strict=True))
    start = [(param.detach().clone(), copy.deepcopy(optimizer.state[param])) for param in model.parameters()]
    train(other, follower, seed=1)
    for param, (weight, state) in zip(model.parameters(), start, strict=True):
        assert same_bits(param, weight)
        assert all(same_bits(optimizer.state[param][name], state[name]) for name in state)
    train(model, optimizer, seed=1)
    for one, two in pairs:
        assert same_bits(one, two)
        assert int(optimizer.state[one]["step"]) > 12
        assert all(same_bits(value, follower.state[two][name]) for name, value in optimizer.state[one].items())


def test_groups_have_settings_of_their_own_and_may_come_later(device: str, backend: str) -> None:
    params = parameters(device, *DTYPES, torch.bfloat16)
    own: list[dict[str, Any]] = [
        {},
        {"lr": 0.02, "weight_decay": 0.1},
        {"momentum": 0.0, "maximize": True},
        {"nesterov": True, "master_weights": False},
    ]
    groups = [{"params": [param], **settings} for param, settings in zip(params, own, strict=True)]
    rules = [Rule(p, **{"lr": 0.1, "momentum": 0.9, **s}) for p, s in zip(params, own, strict=True)]
    optimizer = ak.MasterSGD(groups[:2], lr=0.1, momentum=0.9)
    for update in range(4):
        if update == 2:
            optimizer.add_param_group(groups[2])
            optimizer.add_param_group(groups[3])
        give_gradients(params, update)
        for param, rule in list(zip(params, rules, strict=True))[: len(optimizer.param_groups)]:
            rule.step(param.grad)
        optimizer.step()
    for param, rule in zip(params, rules, strict=True):
        rule.check(optimizer, param)


def test_parameters_without_gradients_are_left_alone(device: str, backend: str) -> None:
    params = parameters(device, *DTYPES)
    before = params[1].detach().clone()
    optimizer = ak.MasterSGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    give_gradients(params, 0)
    params[1].grad = None
    optimizer.step()
    assert same_bits(params[1], before)
    assert set(optimizer.state) == {params[0], params[2]}
    assert set(optimizer.state_dict()["state"]) == {0, 2}


def test_gradients_set_to_zero(device: str, backend: str) -> None:
    """Momentum and weight decay go on."""
    params = parameters(device, *DTYPES)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    optimizer, rules = ak.MasterSGD(params, **settings), [Rule(param, **settings) for param in params]
    give_gradients(params, 0)
    for update in range(3):
        for param, rule in zip(params, rules, strict=True):
            rule.step(param.grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        assert all(param.grad.count_nonzero() == 0 for param in params), update
    for param, rule in zip(params, rules, strict=True):
        rule.check(optimizer, param)


@pytest.mark.parametrize("lr_device", [None, "cpu", "device"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_learning_rate_of_a_schedule(dtype: torch.dtype, lr_device: str | None, device: str, backend: str) -> None:
    """As a float, or as a tensor that the schedule writes."""
    place = device if lr_device == "device" else lr_device
    lr = 0.3 if lr_device is None else torch.tensor(0.3, dtype=dtype, device=place)
    params = parameters(device, *DTYPES)
    optimizer, rules = ak.MasterSGD(params, lr=lr, momentum=0.9), [Rule(p, lr=0.3, momentum=0.9) for p in params]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for update in range(6):
        give_gradients(params, update)
        for param, rule in zip(params, rules, strict=True):
            rule.lr = 0.3 * 0.5 ** (update // 2)
            rule.step(param.grad)
        optimizer.step()
        scheduler.step()
    for param, rule in zip(params, rules, strict=True):
        rule.check(optimizer, param)


def test_schedule_of_learning_rate_and_momentum(device: str, backend: str) -> None:
    ours = parameters(device, torch.float32, shape=(200,))
    theirs = copies(ours)
    optimizers = [ak.MasterSGD(ours, lr=0.1, momentum=0.9), torch.optim.SGD(theirs, lr=0.1, momentum=0.9)]
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=8) for optimizer in optimizers]
    for update in range(8):
        together(optimizers, [ours, theirs], range(update, update + 1))
        if update < 7:
            for scheduler in schedulers:
                scheduler.step()
    assert near(ours[0], theirs[0])


def test_momentum_that_comes_later_begins_with_a_gradient(device: str, backend: str) -> None:
    """As torch.optim.SGD's: a first update with momentum is not dampened. Powers of two: no rounding."""
    ours = [nn.Parameter(torch.ones(9, device=device))]
    theirs = copies(ours)
    optimizers = [kind(ps, lr=0.5) for kind, ps in ((ak.MasterSGD, ours), (torch.optim.SGD, theirs))]
    for update in range(4):
        for optimizer, (param,) in zip(optimizers, (ours, theirs), strict=True):
            if update == 1:
                optimizer.param_groups[0].update(momentum=0.5, dampening=0.5)
            param.grad = torch.full_like(param, 0.25 * (update + 1))
            optimizer.step()
    assert torch.equal(ours[0], theirs[0])


def test_sparse_gradient_is_refused_and_nothing_updated(device: str, backend: str) -> None:
    (first,) = parameters(device, torch.bfloat16)
    embedding = nn.Embedding(4, 3, sparse=True, device=device)
    before = [param.detach().clone() for param in (first, embedding.weight)]
    optimizer = ak.MasterSGD([{"params": [first]}, {"params": embedding.parameters()}], lr=0.1, momentum=0.9)
    give_gradients([first], 0)
    embedding(torch.tensor([1, 2], device=device)).sum().backward()
    with pytest.raises(TypeError, match=r"MasterSGD: grad: wanted a dense \(strided\) tensor, got torch.sparse_coo"):
        optimizer.step()
    assert same_bits(first, before[0])
    assert same_bits(embedding.weight, before[1])
    assert len(optimizer.state) == 0


def test_refused_groups_are_not_added(device: str) -> None:
    params = parameters(device, torch.float32, torch.float32)
    optimizer = ak.MasterSGD(params[:1], lr=0.1, momentum=0.9)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"params": nn.Parameter(torch.ones(3, dtype=torch.complex64))},
            TypeError,
            "params: wanted float32.*complex64",
        ),
        ({"params": nn.Parameter(torch.eye(3).to_sparse())}, TypeError, "params: wanted a dense.*sparse_coo"),
        ({"params": params[1:], "lr": -1.0}, ValueError, "lr: wanted a finite number of at least 0, got -1"),
        (
            {"params": params[1:], "lr": torch.ones(2)},
            ValueError,
            "lr: wanted a float or a floating-point tensor of one",
        ),
        ({"params": params[1:], "momentum": torch.ones(())}, ValueError, "momentum: wanted a finite number"),
        ({"params": params[1:], "dampening": 0.1, "nesterov": True}, ValueError, "nesterov: wanted momentum > 0"),
    ]
    for group, error, message in refused:
        with pytest.raises(error, match=f"MasterSGD: {message}"):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1
    with pytest.raises(TypeError, match=r"MasterSGD: params: wanted float32.*complex64"):
        ak.MasterSGD([torch.ones(3, dtype=torch.complex64)], lr=0.1)
    optimizer.add_param_group({"params": params[1:]})


@pytest.mark.parametrize("name", ["grad_scale", "found_inf"])
@pytest.mark.parametrize(("value", "got"), [(2.0, "float"), (torch.ones(2), r"shape \(2,\)")])
def test_wrong_scales_are_refused_and_nothing_updated(name: str, value: object, got: str, device: str) -> None:
    params = parameters(device, torch.float32)
    before = params[0].detach().clone()
    optimizer = ak.MasterSGD(params, lr=0.1)
    setattr(optimizer, name, value)
    give_gradients(params, 0)
    with pytest.raises(TypeError, match=f"MasterSGD: {name}: wanted a tensor of one number, or None, got {got}"):
        optimizer.step()
    assert same_bits(params[0], before)


@pytest.mark.gpu
@pytest.mark.parametrize("scaler_device", ["cuda", "cpu"])
def test_parameters_of_several_devices(scaler_device: str) -> None:
    params = [*parameters("cpu", *SCALED["cpu"]), *parameters("cuda", *SCALED["cuda"])]
    settings = {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}
    optimizer = ak.MasterSGD(params, **settings)
    rules = [Rule(param, **settings) for param in params]
    scaler = torch.amp.GradScaler(scaler_device, init_scale=1000.0)
    for update in range(6):
        coefficients = [torch.randn(param.shape, device=scaler_device) for param in params]
        if update % 2 == 0:
            coefficients[update][3] = torch.inf
        backward(params, coefficients, scaler)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if update % 2:
            for param, rule in zip(params, rules, strict=True):
                rule.step(param.grad, scale)
    for param, rule in zip(params, rules, strict=True):
        rule.check(optimizer, param)


@pytest.mark.gpu
def test_a_scaled_step_does_not_wait_for_the_device() -> None:
    params = parameters("cuda", *DTYPES)
    optimizer = ak.MasterSGD(params, lr=torch.tensor(0.1, device="cuda"), momentum=0.9)
    optimizer.grad_scale = torch.tensor(3.0, device="cuda")
    optimizer.found_inf = torch.zeros((), device="cuda")
    give_gradients(params, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with ak.backend("native"):
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(optimizer.state[params[0]]["step"]) == 1


def test_a_master_is_dropped_with_the_half_precision_of_its_weight(device: str, backend: str) -> None:
    """State of a half-precision run goes on in float32, by the plain rule."""
    half = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16, device=device))
    first = ak.MasterSGD([half], 0.1, momentum=0.5)
    half.grad = torch.ones_like(half)
    first.step()
    single = torch.nn.Parameter(half.detach().float())
    second = ak.MasterSGD([single], 0.1, momentum=0.5)
    second.load_state_dict(first.state_dict())
    before = single.detach().clone()
    single.grad = torch.ones_like(single)
    second.step()
    assert torch.equal(single, before - torch.tensor(0.1) * 1.5)


def test_parameters_that_overlap_themselves_are_refused(device: str, backend: str) -> None:
    param = torch.nn.Parameter(torch.zeros(1, device=device).expand(4))
    param.grad = torch.ones(4, device=device)
    with pytest.raises(RuntimeError):
        ak.MasterSGD([param], 0.1).step()
    assert not param.any()


def test_a_step_that_fails_forgets_the_scale(device: str) -> None:
    param = torch.nn.Parameter(torch.ones(4, device=device))
    optimizer = ak.MasterSGD([param], 0.1)
    scaler = torch.amp.GradScaler(torch.device(device).type, init_scale=4.0)
    scaler.scale(param.sum()).backward()
    optimizer.param_groups[0]["momentum"] = "0.9"
    with pytest.raises(ValueError, match="MasterSGD: momentum: wanted a finite number"):
        scaler.step(optimizer)
    optimizer.param_groups[0]["momentum"] = 0.0
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert torch.equal(param, torch.full_like(param, 1.0) - torch.tensor(0.1))
