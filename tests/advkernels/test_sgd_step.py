"""MasterSGD and sgd_step_ against the rule in NumPy, against torch.optim.SGD, and in every state a tensor can have."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from plain import sgd_step

import advkernels as ak

SETTINGS = [
    {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.0, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.3, "nesterov": False},
    {"momentum": 0.9, "dampening": 0.0, "nesterov": True},
]
SHAPES = [(1,), (0,), (7,), (33, 31), (5, 3, 3, 3), (1100,), (40, 1000)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def parameters(device: str, seed: int) -> list[torch.nn.Parameter]:
    """One parameter of each shape, the dtypes in turn, one of them channels_last, one not dense."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator).to(DTYPES[i % 3]) for i, shape in enumerate(SHAPES)]
    made[4] = made[4].contiguous(memory_format=torch.channels_last)
    made.append(torch.randn(6, 8, generator=generator)[:, ::2])
    return [torch.nn.Parameter(tensor.to(device)) for tensor in made]


@pytest.mark.parametrize(
    ("setting", "weight_decay", "maximize"), list(itertools.product(SETTINGS, [0.0, 5e-4], [False, True]))
)
def test_master_sgd_equals_the_rule(
    setting: dict, weight_decay: float, maximize: bool, device: str, backend: str
) -> None:
    rule = {"weight_decay": weight_decay, "maximize": maximize, **setting}
    params = parameters(device, seed=0)
    optimizer = ak.MasterSGD(params, lr=0.1, **rule)
    weights = [p.detach().float().cpu().numpy() for p in params]
    buffers: list[np.ndarray | None] = [None] * len(params)
    generator = torch.Generator().manual_seed(1)
    for update in range(4):
        lr = 0.1 / (1 + update)
        optimizer.param_groups[0]["lr"] = lr
        for i, param in enumerate(params):
            absent = update == 0 and i == 3  # its first update comes later
            param.grad = None if absent else torch.randn(param.shape, generator=generator).to(param.device, param.dtype)
            if not absent:
                g = param.grad.float().cpu().numpy()
                weights[i], buffers[i] = sgd_step(weights[i], g, buffers[i], buffers[i] is None, lr=lr, **rule)
        optimizer.step()
    for param, weight in zip(params, weights, strict=True):
        assert torch.equal(param.detach().cpu(), torch.from_numpy(weight).to(param.dtype))
        master = optimizer.state[param]["master"]
        assert (master.numel() > 0) == (param.dtype != torch.float32 and param.numel() > 0)
        if master.numel():
            assert torch.equal(master.cpu(), torch.from_numpy(weight))


def test_without_master_weights_rounds_into_the_parameter(device: str, backend: str) -> None:
    param = torch.nn.Parameter(torch.randn(1000, device=device).to(torch.bfloat16))
    optimizer = ak.MasterSGD([param], lr=0.1, momentum=0.9, weight_decay=5e-4, master_weights=False)
    w, buffer = param.detach().clone(), torch.zeros_like(param)
    for update in range(3):
        param.grad = torch.randn(1000, device=device).to(torch.bfloat16)
        g = param.grad.float() + torch.tensor(5e-4, device=device) * w.float()
        b = g if update == 0 else torch.tensor(0.9, device=device) * buffer.float() + g
        w, buffer = (w.float() - torch.tensor(0.1, device=device) * b).to(torch.bfloat16), b.to(torch.bfloat16)
        optimizer.step()
        assert torch.equal(param.detach(), w)
        assert torch.equal(optimizer.state[param]["momentum_buffer"], buffer)
    assert optimizer.state[param]["master"].numel() == 0


@pytest.mark.parametrize("setting", SETTINGS)
def test_close_to_torch_sgd(setting: dict, device: str, backend: str) -> None:
    """torch fuses some products and sums: after 20 updates at most 2e-6 of the largest weight apart."""
    ours = [torch.nn.Parameter(torch.randn(64, 33, device=device)) for _ in range(2)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = [
        cls(ps, lr=0.05, weight_decay=1e-3, **setting) for cls, ps in ((ak.MasterSGD, ours), (torch.optim.SGD, theirs))
    ]
    for _ in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 2e-6 * other.abs().max()


def test_half_error_is_that_of_the_master_plus_one_rounding(device: str, backend: str) -> None:
    """Against float64 the masters err as a float32 loop on the same gradients does, parameters one rounding more."""
    lr, momentum, weight_decay = 0.01, 0.9, 5e-4
    for dtype in (torch.bfloat16, torch.float16):
        param = torch.nn.Parameter(torch.randn(5000, device=device).to(dtype))
        exact, single = param.detach().double(), param.detach().float()
        buffers = [torch.zeros_like(exact), torch.zeros_like(single)]
        optimizer = ak.MasterSGD([param], lr=lr, momentum=momentum, weight_decay=weight_decay)
        for _ in range(50):
            param.grad = torch.randn_like(param)
            buffers[0] = momentum * buffers[0] + (param.grad.double() + weight_decay * exact)
            exact = exact - lr * buffers[0]
            buffers[1] = momentum * buffers[1] + (param.grad.float() + weight_decay * single)
            single = single - lr * buffers[1]
            optimizer.step()
        master = optimizer.state[param]["master"]
        error = (single.double() - exact).abs()
        assert error.max() < 1e-5
        assert torch.all((master.double() - exact).abs() <= error)
        assert torch.equal(param.detach(), master.to(dtype))
        info = torch.finfo(dtype)
        rounding = (info.eps / 2 * single.double().abs()).clamp(min=info.smallest_normal * info.eps / 2)
        assert torch.all((param.detach().double() - exact).abs() <= error + rounding)


def raw_arguments(device: str, **changes: object) -> dict:
    params = [p.detach() for p in parameters(device, seed=2)]
    arguments = {
        "params": params,
        "grads": [torch.randn(p.shape).to(p) for p in params],
        "masters": [p.float() if p.dtype != torch.float32 else p.new_empty(0) for p in params],
        "momentum_buffers": [torch.rand_like(p, dtype=torch.float32) for p in params],
        "steps": [torch.zeros((), dtype=torch.int64, device=device) for p in params],
        "lr": torch.tensor(0.1, device=device), "inv_scale": None, "found_inf": None,
        "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False, "maximize": False,
    }  # fmt: skip
    return arguments | changes


def run(arguments: dict, device: str) -> None:
    ak.dispatch.pick(ak.dispatch.choose(torch.device(device)), "sgd_step_")(*arguments.values())


def test_found_inf_changes_nothing(device: str, backend: str) -> None:
    arguments = raw_arguments(
        device, inv_scale=torch.tensor(0.5, device=device), found_inf=torch.ones((), device=device)
    )
    arguments["grads"][0].fill_(float("inf"))
    before = copy.deepcopy(arguments)
    run(arguments, device)
    for name in ("params", "masters", "momentum_buffers", "steps"):
        for one, other in zip(arguments[name], before[name], strict=True):
            assert torch.equal(one, other)


def test_inv_scale_is_a_product_before_all_else(device: str, backend: str) -> None:
    scale = torch.tensor(1 / 3, device=device)
    scaled = raw_arguments(device, inv_scale=scale, found_inf=torch.zeros((), device=device))
    plain = copy.deepcopy(scaled) | {"inv_scale": None}
    plain["grads"] = [g.float() * scale for g in plain["grads"]]
    run(scaled, device)
    run(plain, device)
    for name in ("params", "masters", "momentum_buffers", "steps"):
        for one, other in zip(scaled[name], plain[name], strict=True):
            assert torch.equal(one, other)


def test_learning_rate_as_a_tensor(device: str, backend: str) -> None:
    params = [torch.nn.Parameter(torch.ones(100, device=device)) for _ in range(2)]
    lrs = [0.3, torch.tensor(0.3, device=device)]
    for param, lr in zip(params, lrs, strict=True):
        param.grad = torch.full_like(param, 0.7)
        ak.MasterSGD([param], lr=lr).step()
    assert torch.equal(*params)


def test_refusals(device: str, backend: str) -> None:
    param = torch.nn.Parameter(torch.ones(4, 2, device=device))
    for name, value in (("lr", -1), ("lr", math.inf), ("momentum", math.inf), ("dampening", math.nan)):
        with pytest.raises(ValueError, match=f"MasterSGD: {name}: wanted a finite number.*{value}"):
            ak.MasterSGD([param], **{"lr": 1, name: value})
    with pytest.raises(ValueError, match="MasterSGD: lr: wanted a float or a floating-point tensor of one"):
        ak.MasterSGD([param], lr=torch.ones(2))
    with pytest.raises(ValueError, match="MasterSGD: nesterov: wanted momentum > 0"):
        ak.MasterSGD([param], lr=1, nesterov=True)
    with pytest.raises(TypeError, match=r"MasterSGD: params: wanted float32.*float64"):
        ak.MasterSGD([torch.nn.Parameter(torch.ones(4, dtype=torch.float64))], lr=1)
    first = torch.nn.Parameter(torch.ones(3, device=device))
    first.grad = torch.ones(3, device=device)
    optimizer = ak.MasterSGD([{"params": [first]}, {"params": [param]}], lr=1)
    param.grad = torch.ones(4, 2, device=device).to_sparse()
    with pytest.raises(TypeError, match="MasterSGD: grad: wanted a dense"):
        optimizer.step()
    assert torch.equal(param.detach(), torch.ones(4, 2, device=device))
    assert torch.equal(first.detach(), torch.ones(3, device=device))


def test_goes_on_from_torch_sgd(device: str, backend: str) -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(50, device=device)) for _ in range(2))
    optimizer = torch.optim.SGD([theirs], lr=0.5, momentum=0.5)
    follower = ak.MasterSGD([ours], lr=0.5, momentum=0.5)
    for update in range(3):
        theirs.grad = torch.full((50,), 0.25, device=device)
        optimizer.step()
        if update == 0:
            follower.load_state_dict({**optimizer.state_dict(), "param_groups": follower.state_dict()["param_groups"]})
            with torch.no_grad():
                ours.copy_(theirs)
            continue
        ours.grad = theirs.grad.clone()
        follower.step()
    assert torch.equal(ours, theirs)  # powers of two: no rounding


def test_momentum_and_half_precision_may_come_later(device: str, backend: str) -> None:
    param = torch.nn.Parameter(torch.ones(50, device=device))
    optimizer = ak.MasterSGD([param], lr=0.5)
    param.grad = torch.full_like(param, 0.25)
    optimizer.step()
    param.data = param.data.to(torch.bfloat16)
    param.grad = torch.full((50,), 0.25, dtype=torch.bfloat16, device=device)
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    optimizer.step()
    master = optimizer.state[param]["master"]
    assert torch.equal(master, torch.full((50,), 0.875 - 0.5 * 0.25 - 0.5 * 0.375, device=device))


def test_state_dict_resumes_bit_for_bit(device: str, backend: str) -> None:
    first, second = (parameters(device, seed=3) for _ in range(2))
    optimizers = [ak.MasterSGD(ps, lr=0.1, momentum=0.9, dampening=0.1) for ps in (first, second)]

    def update(params: list, optimizer: ak.MasterSGD, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param)
        optimizer.step()

    update(first, optimizers[0], 0)
    saved = copy.deepcopy((optimizers[0].state_dict(), [p.detach().clone() for p in first]))
    update(first, optimizers[0], 1)
    with torch.no_grad():
        for param, value in zip(second, saved[1], strict=True):
            param.copy_(value)
    optimizers[1].load_state_dict(saved[0])
    update(second, optimizers[1], 1)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(optimizers[0].state[one]["master"], optimizers[1].state[other]["master"])
