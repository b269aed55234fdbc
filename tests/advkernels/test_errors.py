"""Bad input: an error that names operation, argument, wanted and got, and nothing written."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies

import advkernels as ak

SHAPE = (4, 3, 8, 8)


def good(device: str) -> dict:
    """Arguments that a step takes."""
    return {
        "delta": torch.full(SHAPE, 0.01, device=device),
        "grad": torch.ones(SHAPE, device=device),
        "x": torch.full(SHAPE, 0.5, device=device),
        "alpha": 0.1,
        "epsilon": 0.2,
    }


def other_device(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def overlapping_windows() -> dict:
    buffer = torch.zeros(4, 3, 8, 9)
    return {"delta": buffer[..., :-1], "x": buffer[..., 1:]}


def negated(like: torch.Tensor) -> torch.Tensor:
    """A view that PyTorch negates at every read."""
    return torch.zeros(like.shape, dtype=torch.complex64, device=like.device).conj().imag


BAD: list[tuple[str, Callable[[dict], dict], type[Exception], str]] = [
    ("shape", lambda a: {"grad": a["grad"][:2]}, ValueError, r"grad: wanted shape \(4, 3, 8, 8\), got \(2, 3"),
    ("broadcast", lambda a: {"delta": a["delta"][:1]}, ValueError, "sign_step_: delta: wanted shape"),
    ("dtype", lambda a: {"x": a["x"].double()}, TypeError, "sign_step_: x: wanted float32.*got torch.float64"),
    ("integer", lambda a: {"delta": a["delta"].int()}, TypeError, "sign_step_: delta: wanted float32.*int32"),
    ("sparse", lambda a: {"grad": a["grad"].to_sparse()}, TypeError, "sign_step_: grad: wanted a dense"),
    ("sparse delta", lambda a: {"delta": a["delta"].to_sparse()}, TypeError, "sign_step_: delta: wanted a dense"),
    ("sparse out", lambda a: {"out": a["x"].to_sparse()}, TypeError, "sign_step_: out: wanted a dense"),
    ("sparse mask", lambda a: {"mask": torch.ones(4, dtype=torch.bool).to_sparse()}, TypeError, "mask: wanted a dense"),
    ("digits", lambda a: {"epsilon": "909"}, TypeError, "sign_step_: epsilon: wanted a float.*str"),
    ("not a tensor", lambda a: {"x": 0.5}, TypeError, "sign_step_: x: wanted a tensor, got float"),
    ("device", lambda a: {"grad": other_device(a["grad"])}, ValueError, "sign_step_: grad: wanted device"),
    ("negative epsilon", lambda a: {"epsilon": -0.1}, ValueError, "sign_step_: epsilon: wanted a radius.*-0.1"),
    ("negative channel", lambda a: {"epsilon": (0.1, -0.1, 0.1)}, ValueError, "sign_step_: epsilon: wanted a radius"),
    ("NaN epsilon", lambda a: {"epsilon": float("nan")}, ValueError, "sign_step_: epsilon: wanted a number"),
    ("infinite alpha", lambda a: {"alpha": float("inf")}, ValueError, "sign_step_: alpha: wanted a finite"),
    ("beyond float32", lambda a: {"epsilon": 1e39}, ValueError, "sign_step_: epsilon: wanted a finite float32"),
    ("word", lambda a: {"alpha": "0.1"}, TypeError, "sign_step_: alpha: wanted a float.*str"),
    ("dimensions", lambda a: {"x": a["x"].view(4, 3, 8, 8, 1, 1, 1, 1, 1)}, ValueError, "x: wanted at most 8 dim.*9"),
    ("array", lambda a: {"x": a["x"].cpu().numpy()}, TypeError, "sign_step_: x: wanted a tensor, got ndarray"),
    ("channels", lambda a: {"alpha": (0.1, 0.2)}, ValueError, "sign_step_: alpha: wanted 1 or 3 floats"),
    ("text", lambda a: {"alpha": None}, TypeError, "sign_step_: alpha: wanted a float.*NoneType"),
    ("bare per-sample", lambda a: {"epsilon": a["x"].new_ones(4)}, ValueError, r"epsilon: wanted \(3,\).*got \(4,\)"),
    ("whole image", lambda a: {"epsilon": a["x"].clone()}, ValueError, "epsilon: wanted .* per sample"),
    ("integer bound", lambda a: {"epsilon": a["x"].new_ones(3).int()}, TypeError, "epsilon: wanted a floating-point"),
    ("bound device", lambda a: {"epsilon": other_device(a["x"].new_ones(3))}, ValueError, "epsilon: wanted device"),
    ("mask dtype", lambda a: {"mask": a["x"].new_ones(4)}, TypeError, "mask: wanted a dense torch.bool"),
    ("mask shape", lambda a: {"mask": a["x"].new_ones(3).bool()}, ValueError, r"mask: wanted shape \(4,\)"),
    ("out shape", lambda a: {"out": a["x"].new_ones(4, 3, 8, 7)}, ValueError, "out: wanted shape"),
    ("leaf", lambda a: {"delta": a["delta"].requires_grad_()}, ValueError, "delta: wanted .*a leaf that requires grad"),
    ("not a leaf", lambda a: {"delta": a["delta"].requires_grad_() * 2}, ValueError, "delta: wanted .*requires grad"),
    ("delta is grad", lambda a: {"grad": a["delta"]}, ValueError, "delta: wanted memory of its own, .* with grad"),
    ("out is x", lambda a: {"out": a["x"]}, ValueError, "out: wanted memory of its own, .* with x"),
    ("out is delta", lambda a: {"out": a["delta"]}, ValueError, "out: wanted memory of its own, .* with delta"),
    ("windows", lambda a: {k: v.to(a["x"].device) for k, v in overlapping_windows().items()}, ValueError, "memory"),
    ("negated", lambda a: {"delta": negated(a["x"])}, ValueError, "sign_step_: delta: wanted .*call .resolve_neg()"),
    ("negated out", lambda a: {"out": negated(a["x"])}, ValueError, "sign_step_: out: wanted .*call .resolve_neg()"),
    ("expanded", lambda a: {"delta": a["x"].new_zeros(1, 3, 8, 8).expand(SHAPE)}, ValueError, "overlaps itself"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["sign_step_", "l2_step_"])
@pytest.mark.parametrize(("change", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_step_refuses(
    name: str, change: Callable, error: type[Exception], message: str, device: str, backend: str
) -> None:
    arguments = good(device)
    if message == "memory" and device == "cuda":
        pytest.skip("the windows are cut from one CPU buffer")
    arguments |= change(arguments)
    written = {name: arguments[name] for name in ("delta", "out") if isinstance(arguments.get(name), torch.Tensor)}
    before = {name: tensor.detach().clone() for name, tensor in written.items()}
    with pytest.raises(error, match=message.replace("sign_step_", name)):
        getattr(ak, name)(**arguments)
    for name, tensor in written.items():
        assert torch.equal(tensor.to_dense(), before[name].to_dense())


def test_negated_tensors_are_read(device: str, backend: str) -> None:
    x = torch.full(SHAPE, 0.5, device=device)
    grad = torch.randn(SHAPE, dtype=torch.complex64, device=device).conj().imag
    delta = ak.sign_step_(torch.zeros_like(x), grad, x, 0.25, 1.0)
    assert torch.equal(delta, 0.25 * torch.sign(grad))


@pytest.mark.parametrize(("step", "init"), [("sign_step", "uniform_init"), ("l2_step", "l2_init")])
def test_graphs_of_arguments_are_cut(step: str, init: str, device: str, backend: str) -> None:
    x = torch.full(SHAPE, 0.5, device=device, requires_grad=True)
    epsilon = torch.full((3,), 0.2, device=device, requires_grad=True)
    start = getattr(ak, init)(x, epsilon, rng=ak.PhiloxState(0, device))
    stepped = getattr(ak, step)(x * 0, torch.ones_like(x), x, epsilon, epsilon)
    assert [start.requires_grad, stepped.requires_grad] == [False, False]


def test_disjoint_parts_of_one_buffer_are_fine(device: str, backend: str) -> None:
    buffer = torch.full((4, 6, 8, 8), 0.5, device=device)
    delta, x = buffer[:, :3], buffer[:, 3:]
    ak.sign_step_(delta, torch.ones(SHAPE, device=device), x, 0.1, 0.7)
    assert torch.equal(delta, torch.minimum(torch.full_like(x, 0.5) + 0.1, 1.0 - x))
    assert torch.equal(x, torch.full_like(x, 0.5))


def test_a_large_float64_bound_is_refused(backend: str, device: str) -> None:
    if device == "cuda":
        pytest.skip("values of CUDA tensors are not read")
    arguments = good(device) | {"epsilon": torch.full((3,), 1e300, dtype=torch.float64)}
    with pytest.raises(ValueError, match="sign_step_: epsilon: wanted a finite float32 number"):
        ak.sign_step_(**arguments)


def test_images_that_require_grad_record_nothing(device: str, backend: str) -> None:
    x = torch.full(SHAPE, 0.5, device=device, requires_grad=True)
    delta = ak.uniform_init(x, 0.1, rng=ak.PhiloxState(0, device))
    out = torch.empty_like(delta)
    for _ in range(2):
        ak.sign_step_(delta, torch.ones_like(delta), x, 0.1, 0.2, out=out)
    assert not delta.requires_grad
    assert not out.requires_grad


def test_leaf_is_fine_without_grad_mode(device: str, backend: str) -> None:
    delta = torch.zeros(SHAPE, device=device, requires_grad=True)
    with torch.no_grad():
        ak.sign_step_(delta, torch.ones(SHAPE, device=device), torch.full(SHAPE, 0.5, device=device), 0.1, 0.2)
    assert torch.equal(delta.detach(), torch.full(SHAPE, 0.1, device=device))


@pytest.mark.parametrize("name", ["uniform_init", "l2_init"])
def test_init_refuses(name: str, device: str, backend: str) -> None:
    init, init_ = getattr(ak, name), getattr(ak, f"{name}_")
    x = torch.rand(SHAPE, device=device)
    rng = ak.PhiloxState(0, device)
    with pytest.raises(TypeError, match=f"{name}_: rng: wanted a PhiloxState, got int"):
        init(x, 0.1, rng=0)
    with pytest.raises(ValueError, match=f"{name}_: rng: wanted device"):
        init(other_device(x), 0.1, rng=rng)
    with pytest.raises(TypeError, match=r"sample_index: wanted a dense torch\.int64"):
        init(x, 0.1, rng=rng, sample_index=torch.arange(4, device=device).int())
    with pytest.raises(ValueError, match=r"sample_index: wanted shape \(4,\)"):
        init(x, 0.1, rng=rng, sample_index=torch.arange(3, device=device))
    with pytest.raises(ValueError, match="epsilon: wanted a radius"):
        init(x, -0.1, rng=rng)
    with pytest.raises(ValueError, match="memory of its own"):
        init_(x, x, 0.1, rng=rng)
    assert rng.draw == 0


def test_numbers_of_numpy_and_python_are_floats(device: str, backend: str) -> None:
    x = torch.full(SHAPE, 0.5, device=device)
    results = [
        ak.sign_step(torch.zeros_like(x), torch.ones_like(x), x, alpha, 1)
        for alpha in (0.25, np.float32(0.25), np.float64(0.25), (np.float32(0.25),) * 3)
    ]
    assert all(torch.equal(result, torch.full_like(x, 0.25)) for result in results)
    with pytest.raises(TypeError, match="sign_step: delta: wanted a tensor, got float"):
        ak.sign_step(0.0, x, x, 0.1, 0.2)


def test_state_of_random_numbers_refuses() -> None:
    for seed in ("a", 1.5):
        with pytest.raises(TypeError, match="PhiloxState: seed: wanted an int"):
            ak.PhiloxState(seed)
    rng = ak.PhiloxState(3)
    for tensor in (torch.tensor(7), torch.tensor([0, 2**48]), torch.tensor([0.0, 1.0]), torch.tensor([-5, 3])):
        with pytest.raises(ValueError, match="PhiloxState: state: wanted"):
            rng.load_state_dict({"tensor": tensor})
    for draw in (1.7, "1", None):
        with pytest.raises(TypeError, match="PhiloxState: draw: wanted an int"):
            rng.seek(draw)
    for draw in (-1, 2**48):
        with pytest.raises(ValueError, match="PhiloxState: draw: wanted an int in"):
            rng.seek(draw)
    assert (rng.seed, rng.draw) == (3, 0)
    rng.seek(np.int64(7))
    assert rng.draw == 7


def test_raw_sgd_step_refuses_dtypes_it_does_not_know() -> None:
    if ak.dispatch.native.why_missing("cpu") is not None:
        pytest.skip(str(ak.dispatch.native.why_missing("cpu")))
    for dtype in (torch.float64, torch.int8):
        param = torch.ones(4, dtype=dtype)
        lists = [[param], [param.clone()], [torch.empty(0)], [torch.zeros(4)], [torch.tensor(0)]]
        with pytest.raises(RuntimeError, match="sgd_step_: params: wanted float32"):
            torch.ops.advkernels.sgd_step_(*lists, torch.tensor(0.1), None, None, 0.9, 0.0, 0.0, False, False)
        assert torch.equal(param, torch.ones(4, dtype=dtype))


@pytest.mark.parametrize(("step", "init"), [("sign_step_", "uniform_init_"), ("l2_step_", "l2_init_")])
def test_native_operators_refuse_what_would_break_memory(step: str, init: str) -> None:
    """Called without the facade, the native operators still check shapes, dtypes and tables."""
    if (reason := ak.dispatch.native.why_missing("cpu")) is not None:
        pytest.skip(reason)
    x, op = torch.zeros(SHAPE), getattr(torch.ops.advkernels, step)
    bounds = [0.1, 0.1, 0.0, 1.0]
    with pytest.raises(RuntimeError, match=rf"{step}: grad: wanted shape \(4, 3, 8, 8\), got \(1, 3, 8, 8\)"):
        op.values(x.clone(), x[:1], x, bounds, None, None)
    with pytest.raises(RuntimeError, match=f"{step}: delta: wanted float32"):
        op.values(x.double(), x, x, bounds, None, None)
    with pytest.raises(RuntimeError, match=f"{step}: bounds: wanted 4 rows of 1 or 3 floats"):
        op.values(x.clone(), x, x, bounds[1:], None, None)
    with pytest.raises(RuntimeError, match=f"{step}: mask: wanted"):
        op.values(x.clone(), x, x, bounds, torch.ones(3, dtype=torch.bool), None)
    with pytest.raises(RuntimeError, match=f"{step}: alpha: wanted a table"):
        op.tensors(x.clone(), x, x, [torch.ones(2, 3), *[torch.ones(1, 1)] * 3], None, None)
    with pytest.raises(RuntimeError, match=f"{step}: delta: wanted memory of its own"):
        op.values(x, x.clone(), x, bounds, None, None)
    with pytest.raises(RuntimeError, match=f"{step}: out: wanted one place in memory an element"):
        op.values(x.clone(), x, x, bounds, None, x[:1].clone().expand(SHAPE))
    windows = overlapping_windows()
    with pytest.raises(RuntimeError, match=f"{step}: delta: wanted memory of its own"):
        op.values(windows["delta"], x, windows["x"], bounds, None, None)
    state = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=f"{init}: state: wanted shape"):
        getattr(torch.ops.advkernels, init).values(x.clone(), x, state, bounds[1:], None, None)


def places(view: torch.Tensor) -> list[int]:
    """The place of every element in its buffer."""
    count = view.untyped_storage().nbytes() // view.element_size()
    return torch.arange(count).as_strided(view.shape, view.stride(), view.storage_offset()).flatten().tolist()


@strategies.composite
def views(draw: strategies.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of one shape, with any strides, of one buffer."""
    shape = draw(strategies.lists(strategies.integers(0, 3), min_size=1, max_size=3))
    buffer = torch.full((64,), 0.5)
    strides = strategies.lists(strategies.integers(0, 9), min_size=len(shape), max_size=len(shape))
    one, other = (buffer.as_strided(shape, draw(strides), draw(strategies.integers(0, 9))) for _ in range(2))
    return one, other


@given(views())
@example((torch.zeros(64).as_strided((2, 3), (6, 1), 0), torch.zeros(64).as_strided((2, 3), (6, 1), 3)))
@pytest.mark.parametrize("name", ["reference", "native"])
def test_overlap_is_found_exactly(name: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    delta, x = pair
    written, read = places(delta), places(x)
    allowed = len(set(written)) == len(written) and not set(written) & set(read)
    before = delta.clone()
    with ak.backend(name):
        if allowed or delta.numel() == 0:
            ak.sign_step_(delta, torch.ones_like(x), x, 0.25, 0.25)
            assert torch.equal(delta, torch.full_like(delta, 0.25))
        else:
            with pytest.raises(ValueError, match=r"sign_step_: delta: wanted (one place|memory)"):
                ak.sign_step_(delta, torch.ones_like(x), x, 0.25, 0.25)
            assert torch.equal(delta, before)
