"""The Triton operators on a GPU: torch.compile, opcheck, CUDA graphs, and what only large tensors show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import advkernels as ak
from advkernels.backends import reference
from advkernels.backends.reference.philox import philox_bits
from advkernels.bounds import pack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHAPE = (4, 3, 16, 16)
EPSILON = (0.1, 0.08, 0.06)


@pytest.fixture(autouse=True)
def _triton() -> Any:
    with ak.backend("triton"):
        yield


def images(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    delta = torch.rand(shape, generator=generator) * 0.1 - 0.05
    grad = torch.randn(shape, generator=generator)
    x = torch.rand(shape, generator=generator)
    return tuple(tensor.to("cuda", dtype) for tensor in (delta, grad, x))  # type: ignore[return-value]


def operators() -> Any:
    import advkernels.backends.triton  # noqa: F401

    return torch.ops.advkernels_triton


def assert_same(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got.cpu(), wanted.cpu(), rtol=0, atol=0)


ATTACKS = pytest.mark.parametrize(("init", "step"), [("uniform_init_", "sign_step_"), ("l2_init_", "l2_step_")])


def attacked(init: str, step: str, grad: Tensor, x: Tensor) -> Tensor:
    """The perturbation of the reference after a random start, in draw 0 of seed 5, and a step."""
    delta = torch.empty_like(x, device="cpu")
    getattr(reference, init)(delta, x.cpu(), torch.tensor([5, 0]), pack([EPSILON, [0.0], [1.0]]))
    getattr(reference, step)(delta, grad.cpu(), x.cpu(), pack([[0.03], EPSILON, [0.0], [1.0]]))
    return delta


@ATTACKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole(
    dtype: torch.dtype, memory_format: torch.memory_format, dynamic: bool, init: str, step: str
) -> None:
    torch.compiler.reset()
    delta, grad, x = (tensor.contiguous(memory_format=memory_format) for tensor in images(dtype))
    rng = ak.PhiloxState(seed=5, device="cuda")

    def attack(delta: Tensor, grad: Tensor, x: Tensor, state: Tensor) -> Tensor:
        box = [0.0] * 3 + [1.0] * 3
        getattr(operators(), init).values(delta, x, state, [*EPSILON, *box], None, None)
        getattr(operators(), step).values(delta, grad, x, [*[0.03] * 3, *EPSILON, *box], None, None)
        return delta * 2

    doubled = torch.compile(attack, fullgraph=True, dynamic=dynamic)(delta, grad, x, rng.tensor)
    wanted = attacked(init, step, grad, x)
    assert_same(delta, wanted)
    assert_same(doubled, wanted * 2)
    assert rng.draw == 1


@ATTACKS
def test_facade_compiled_whole(init: str, step: str) -> None:
    torch.compiler.reset()
    delta, grad, x = images()
    wanted, rng = attacked(init, step, grad, x), ak.PhiloxState(seed=5, device="cuda")

    def attack(delta: Tensor, grad: Tensor, x: Tensor, rng: ak.PhiloxState) -> Tensor:
        delta = getattr(ak, init)(delta, x, EPSILON, rng=rng)
        return getattr(ak, step)(delta, grad, x, 0.03, EPSILON, out=grad)

    got = torch.compile(attack, fullgraph=True)(delta, grad, x, rng)
    assert_same(got, wanted)


def data_set() -> tuple[Tensor, Tensor]:
    """Images, and the numbers of some."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images.cuda(), torch.randint(0, 50, (24,), generator=generator).cuda()


def augmented(images: Tensor, index: Tensor, draw: int, dtype: torch.dtype) -> Tensor:
    """The batch of the reference, of seed 5."""
    out = torch.empty((len(index), *images.shape[1:]), dtype=dtype)
    reference.augment_(out, images.cpu(), index.cpu(), torch.tensor([5, draw]), pack([EPSILON, [0.5]]), 4, True)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_augment_compiled_whole(dtype: torch.dtype, dynamic: bool) -> None:
    torch.compiler.reset()
    images, index = data_set()
    rng = ak.PhiloxState(seed=5, device="cuda")

    def batch(images: Tensor, index: Tensor, rng: ak.PhiloxState) -> Tensor:
        return ak.augment(images, index, EPSILON, 0.5, rng=rng, dtype=dtype)

    got = torch.compile(batch, fullgraph=True, dynamic=dynamic)(images, index, rng)
    assert_same(got, augmented(images, index, 0, dtype))


def test_augment_replays() -> None:
    images, index = data_set()
    rng, out = ak.PhiloxState(seed=5, device="cuda"), torch.empty((24, 3, 32, 32), device="cuda")
    graph = captured(lambda: ak.augment(images, index, EPSILON, 0.5, rng=rng, out=out))
    for epoch in range(3):
        rng.seek(epoch)
        index.copy_(index.flip(0).roll(epoch))
        graph.replay()
        assert_same(out, augmented(images, index, epoch, torch.float32))


def row_arguments(dtype: torch.dtype, rows: int = 5000, count: int = 100) -> list[Tensor]:
    """x, residual, grad, weight, bias, running mean and variance, count of batches."""
    generator = torch.Generator().manual_seed(4)
    images = [torch.randn((rows, count), generator=generator).to("cuda", dtype) for _ in range(3)]
    columns = [torch.rand(count, generator=generator).cuda() + 0.5 for _ in range(4)]
    return [*images, *columns, torch.tensor(0, device="cuda")]


def normalized(
    x: Tensor,
    residual: Tensor,
    grad: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
) -> list[Tensor]:
    """All that the operators of BatchNorm and ReLU write, forwards and backwards."""
    mean, variance, total = torch.empty_like(weight), torch.empty_like(weight), torch.empty_like(x)
    out, grad_x, sums = torch.empty_like(x), torch.empty_like(x), torch.empty_like(weight).repeat(2, 1)
    statistics = (running_mean, running_var, batches)
    operators().batch_moments_(mean, variance, total, *statistics, x, residual, 0.3)
    operators().normalize_relu_(out, None, total, None, mean, variance, weight, bias, 1e-3)
    operators().normalize_relu_sums_(sums, grad, total, mean, variance, weight, bias, 1e-3)
    operators().normalize_relu_backward_(grad_x, grad, residual, total, mean, variance, weight, bias, sums, 1e-3)
    return [mean, variance, total, out, sums, grad_x]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_batch_norm_relu_compiled_whole(dtype: torch.dtype, dynamic: bool) -> None:
    """The bits of eager calls, which `test_cases.py` holds against the reference."""
    torch.compiler.reset()
    arguments, others = row_arguments(dtype), row_arguments(dtype)
    got = torch.compile(normalized, fullgraph=True, dynamic=dynamic)(*arguments)
    wanted = normalized(*others)
    for one, other in zip([*got, *arguments], [*wanted, *others], strict=True):
        assert_same(one, other)


def test_batch_norm_relu_replays_to_the_same_bits() -> None:
    arguments, others = row_arguments(torch.bfloat16), row_arguments(torch.bfloat16)
    results: list[list[Tensor]] = []
    graph = captured(lambda: results.append(normalized(*arguments)))
    for argument, other in zip(arguments, others, strict=True):
        argument.copy_(other)
    for count in range(1, 4):
        graph.replay()
        wanted = normalized(*others)
        for one, other in zip([*results[-1], *arguments], [*wanted, *others], strict=True):
            assert_same(one, other)
        assert others[-1].item() == count


def sgd_arguments(found_inf: float = 0.0) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (33,), (16, 40))]
    params = [weight.to("cuda", torch.bfloat16) for weight in weights]
    grads = [torch.randn(weight.shape, generator=generator).to("cuda", torch.bfloat16) for weight in weights]
    masters = [weight.cuda() for weight in weights]
    buffers = [torch.zeros_like(weight, device="cuda") for weight in weights]
    steps = [torch.zeros((), dtype=torch.int64, device="cuda") for _ in weights]
    scalars = [torch.tensor(value, device="cuda") for value in (0.1, 0.5, found_inf)]
    return [params, grads, masters, buffers, steps, *scalars, 0.9, 0.0, 5e-4, True, False]


def to_cpu(argument: Any) -> Any:
    if isinstance(argument, list):
        return [to_cpu(item) for item in argument]
    return argument.cpu() if isinstance(argument, Tensor) else argument


@pytest.mark.parametrize("found_inf", [0.0, 1.0])
def test_sgd_step_compiled_whole(found_inf: float) -> None:
    torch.compiler.reset()
    arguments = sgd_arguments(found_inf)
    wanted = to_cpu(arguments)
    step = torch.compile(lambda *given: operators().sgd_step_(*given), fullgraph=True)
    for _ in range(2):
        step(*arguments)
        reference.sgd_step_(*wanted)
    for got, expected in zip(arguments[:5], wanted[:5], strict=True):
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)


def captured(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """The graph of a call that has run before."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


@pytest.mark.parametrize("init", ["uniform_init_", "l2_init_"])
def test_every_replay_draws_fresh_noise(init: str) -> None:
    delta, _, x = images()
    rng = ak.PhiloxState(seed=11, device="cuda")
    graph = captured(lambda: getattr(ak, init)(delta, x, 0.1, rng=rng))
    first = rng.draw
    for draw in range(first, first + 3):
        graph.replay()
        wanted = torch.empty_like(x, device="cpu")
        getattr(reference, init)(wanted, x.cpu(), torch.tensor([11, draw]), [0.1, 0.0, 1.0])
        assert_same(delta, wanted)
    assert rng.draw == first + 3


def test_l2_step_replays() -> None:
    delta, grad, x = images()
    wanted, before = delta.cpu().clone(), delta.clone()
    graph = captured(lambda: ak.l2_step_(delta, grad, x, 0.03, EPSILON))
    delta.copy_(before)
    for _ in range(3):
        graph.replay()
        reference.l2_step_(wanted, grad.cpu(), x.cpu(), pack([[0.03], EPSILON, [0.0], [1.0]]))
    assert_same(delta, wanted)


def test_sgd_step_replays() -> None:
    arguments = sgd_arguments()
    before = [tensor.clone() for tensors in arguments[:5] for tensor in tensors]
    graph = captured(lambda: operators().sgd_step_(*arguments))
    for tensor, old in zip([tensor for tensors in arguments[:5] for tensor in tensors], before, strict=True):
        tensor.copy_(old)
    wanted = to_cpu(arguments)
    for rate in (0.1, 0.02):
        arguments[5].fill_(rate)
        graph.replay()
        reference.sgd_step_(*wanted[:5], torch.tensor(rate), *wanted[6:])
    for got, expected in zip(arguments[:5], wanted[:5], strict=True):
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)


def test_more_than_two_to_the_31_elements() -> None:
    """Spots of a bfloat16 image of 2^31 + 4096 elements: the end of the tensor and the two sides of 2^31."""
    channels, plane = 2, 2**30 + 2048
    if torch.cuda.mem_get_info()[0] < 4 * channels * plane * 2:
        pytest.skip("needs 18 GB of free device memory")
    x = torch.zeros((1, channels, plane), dtype=torch.bfloat16, device="cuda")
    delta = torch.zeros_like(x)
    state = torch.tensor([3, 0], device="cuda")
    operators().uniform_init_.values(delta, x, state, pack([[0.1, 0.2], [-1.0], [1.0]]), None, None)
    spots = [0, plane - 1, plane, 2**31 - 1, 2**31, 2**31 + 4095]
    bits = philox_bits(torch.tensor([3, 0]), torch.tensor(spots))
    epsilon = torch.tensor([0.1 if spot < plane else 0.2 for spot in spots])
    noise = (bits >> 8).float() * 2.0**-24 * (2 * epsilon) - epsilon
    assert_same(delta.view(-1)[spots], noise.bfloat16())
    operators().sign_step_.values(delta, x.fill_(-1.0), x, pack([[0.5], [0.1, 0.2], [-2.0], [1.0]]), None, None)
    assert_same(delta.view(-1)[spots], -epsilon.bfloat16())


def test_l2_step_of_samples_around_two_to_the_31_elements() -> None:
    """Two bfloat16 samples of 2^30 + 2048 elements: gradients of 1 in four elements of each, of 0 in all others."""
    plane = 2**30 + 2048
    if torch.cuda.mem_get_info()[0] < 3.5 * 2 * plane * 2:
        pytest.skip("needs 15 GB of free device memory")
    delta, grad, x = (torch.zeros((2, 1, plane), dtype=torch.bfloat16, device="cuda") for _ in range(3))
    spots = [0, 1023, 2**30, plane - 1]
    grad[:, :, spots] = 1.0
    operators().l2_step_.values(delta, grad, x, [0.5, 9.0, -1.0, 1.0], None, None)
    assert_same(delta[:, 0, spots], torch.full((2, 4), 0.25, dtype=torch.bfloat16))
    assert delta.count_nonzero() == 8


def test_batch_norm_relu_of_more_than_two_to_the_31_elements() -> None:
    """Zeros, and ones in the last row."""
    rows, count = 2**25 + 3, 64
    if torch.cuda.mem_get_info()[0] < 2.5 * rows * count * 2:
        pytest.skip("needs 11 GB of free device memory")
    x, out = (torch.zeros((rows, count), dtype=torch.bfloat16, device="cuda") for _ in range(2))
    x[-1] = 1
    mean, variance, zeros, ones = (torch.full((count,), value, device="cuda") for value in (7.0, 7.0, 0.0, 1.0))
    operators().batch_moments_(mean, variance, None, None, None, None, x, None, 0.1)
    torch.testing.assert_close(mean.cpu(), torch.full((count,), 1 / rows), rtol=2.0**-22, atol=0)
    torch.testing.assert_close(variance.cpu(), torch.full((count,), 1 / rows - 1 / rows**2), rtol=2.0**-22, atol=0)
    columns, sums = (zeros, ones, ones, zeros), torch.zeros((2, count), device="cuda")
    operators().normalize_relu_sums_(sums, x, x, *columns, 0.0)
    assert_same(sums, torch.ones((2, count)))
    operators().normalize_relu_(out, None, x, None, *columns, 0.0)
    assert out.count_nonzero() == count
    assert_same(out[-1], torch.ones(count, dtype=torch.bfloat16))
    operators().normalize_relu_backward_(out.zero_(), x, None, x, *columns, None, 0.0)
    assert out.count_nonzero() == count
    assert_same(out[-1], torch.ones(count, dtype=torch.bfloat16))
