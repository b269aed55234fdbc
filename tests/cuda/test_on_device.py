"""The CUDA operators on a GPU against the reference on the CPU, bit for bit, and what only a device can show."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from cases import place, same
from plain import uniform_number
from torch import Tensor

import advkernels as ak

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CIFAR = (128, 3, 32, 32)
LAYOUTS = ("contiguous", "channels_last", "mixed")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
EPSILON = tuple(8 / 255 / s for s in STD)
ALPHA = tuple(2 / 255 / s for s in STD)
L2 = tuple(tuple(size / s for s in STD) for size in (0.1, 0.5))  # alpha and epsilon
LOWER = tuple((0 - m) / s for m, s in zip(MEAN, STD, strict=True))
UPPER = tuple((1 - m) / s for m, s in zip(MEAN, STD, strict=True))


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    if (reason := ak.dispatch.why_missing("native", "cuda")) is not None:
        pytest.fail(f"the CUDA operators are missing: {reason}")
    with ak.backend("native"):
        yield


def draw(shape: tuple[int, ...], seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def on_both(operation: Callable[..., Tensor], tensors: dict[str, Tensor], **scalars: object) -> None:
    """The operation on the CPU's reference and on the device changes and returns the same."""
    device = {name: to_device(tensor) for name, tensor in tensors.items()}
    with ak.backend("reference"):
        operation(**tensors, **scalars)
    operation(**device, **scalars)
    for name, tensor in tensors.items():
        assert same(device[name], tensor), name


def to_device(tensor: Tensor) -> Tensor:
    """A copy with the same strides, and the same misalignment within 16 bytes."""
    shift = tensor.storage_offset() % 16
    span = 1 + sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    buffer = torch.empty(shift + max(span, 0), dtype=tensor.dtype, device="cuda")
    return buffer.as_strided(tensor.shape, tensor.stride(), shift).copy_(tensor)


def step(delta: Tensor, grad: Tensor, x: Tensor, out: Tensor, **scalars: object) -> None:
    ak.sign_step_(delta, grad, x, ALPHA, EPSILON, LOWER, UPPER, out=out, **scalars)


def l2_step(delta: Tensor, grad: Tensor, x: Tensor, out: Tensor, **scalars: object) -> None:
    ak.l2_step_(delta, grad, x, *L2, LOWER, UPPER, out=out, **scalars)


def start(operation: Callable[..., Tensor], epsilon: tuple[float, ...], delta: Tensor, x: Tensor, out: Tensor) -> None:
    rng = ak.PhiloxState(2**61 + 3, x.device)
    rng.tensor[1] = 2**35 + 1
    operation(delta, x, epsilon, LOWER, UPPER, rng=rng, out=out)
    assert rng.draw == 2**35 + 2


def init(delta: Tensor, x: Tensor, out: Tensor) -> None:
    start(ak.uniform_init_, EPSILON, delta, x, out)


def l2_init(delta: Tensor, x: Tensor, out: Tensor) -> None:
    start(ak.l2_init_, L2[1], delta, x, out)


attacks = pytest.mark.parametrize(("step", "init"), [(step, init), (l2_step, l2_init)], ids=["linf", "l2"])


@attacks
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES, DTYPES, DTYPES)), ids=lambda d: "-".join(map(str, d)))
def test_every_mix_of_dtypes_and_layouts(
    dtypes: tuple[torch.dtype, ...], layout: str, step: Callable, init: Callable
) -> None:
    parts = [p.to(t) for p, t in zip(draw((8, 3, 32, 32), 0, 3), dtypes, strict=True)]
    delta, grad, x = (place(part, layout, role) for role, part in enumerate(parts))
    out = place(torch.full_like(x, float("nan"), dtype=dtypes[1]), layout, 2)
    on_both(step, {"delta": delta, "grad": grad, "x": x, "out": out})
    on_both(init, {"delta": delta, "x": x, "out": out})


@attacks
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3, 7, 9), (2, 3, 5, 4), (5, 3, 1, 1), (2, 3, 16, 15)])
def test_misaligned_offsets_and_guard_bands(
    shape: tuple[int, ...], dtype: torch.dtype, step: Callable, init: Callable
) -> None:
    """Every common and every mixed storage offset; nothing outside of the tensors is touched."""
    values = [tensor.to(dtype) for tensor in draw(shape, 1, 3)]
    numel = values[0].numel()
    for offsets in [*((i, i, i) for i in range(9)), (0, 1, 0), (4, 4, 0), (8, 0, 4), (3, 5, 7)]:
        buffers = [torch.full((numel + 24,), 9.0, dtype=dtype, device="cuda") for _ in range(4)]
        views = [b[8 + o : 8 + o + numel].view(shape) for b, o in zip(buffers, (*offsets, offsets[0]), strict=True)]
        expected = [value.clone() for value in values]
        for view, value in zip(views, values, strict=False):
            view.copy_(value)
        expected_out = torch.empty_like(values[0])
        with ak.backend("reference"):
            step(*expected, expected_out)
        step(*views)
        assert same(views[0], expected[0])
        assert same(views[3], expected_out)
        with ak.backend("reference"):
            init(expected[0], expected[2], expected_out)
        init(views[0], views[2], views[3])
        assert same(views[0], expected[0])
        assert same(views[3], expected_out)
        for buffer, offset in zip(buffers, (*offsets, offsets[0]), strict=True):
            assert (buffer[: 8 + offset] == 9).all()
            assert (buffer[8 + offset + numel :] == 9).all()


def test_many_channels() -> None:
    """More channels than fit into the kernel's arguments, and than a block's table has."""
    for channels in (64, 65, 256, 257, 1500):
        parts = draw((2, channels, 3, 4), 2, 3)
        bounds = [tuple((0.1 + torch.rand(channels)).tolist()) for _ in range(2)]

        def many(delta: Tensor, grad: Tensor, x: Tensor, bounds: list[tuple[float, ...]] = bounds) -> None:
            ak.sign_step_(delta, grad, x, *bounds)
            ak.uniform_init_(grad, x, bounds[0], rng=ak.PhiloxState(1, x.device))
            ak.l2_step_(delta, grad, x, *bounds)
            ak.l2_init_(grad, x, bounds[0], rng=ak.PhiloxState(1, x.device))

        for layout in LAYOUTS:
            placed = [place(part, layout, role) for role, part in enumerate(parts)]
            on_both(many, dict(zip(("delta", "grad", "x"), placed, strict=True)))


@pytest.mark.parametrize("step", [ak.sign_step_, ak.l2_step_])
def test_masked_nan_keeps_its_bits(step: Callable) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        payload = torch.full((2, 3, 3, 3), 0x7FC5 if dtype == torch.bfloat16 else 0x7E05, dtype=torch.int16).view(dtype)
        delta, x = payload.cuda(), torch.zeros(2, 3, 3, 3, dtype=dtype, device="cuda")
        step(delta, x.clone(), x, 0.1, 0.2, mask=torch.tensor([True, False], device="cuda"))
        assert torch.equal(delta[1].view(torch.int16).cpu(), payload[1].view(torch.int16))


def test_more_elements_than_int32() -> None:
    numel = 2**31 + 4099
    if torch.cuda.mem_get_info()[0] < 4 * 2 * numel + 2**30:
        pytest.skip("not enough device memory")
    x = torch.full((numel,), 0.5, dtype=torch.float16, device="cuda")
    delta = torch.full_like(x, float("nan"))
    ak.uniform_init_(delta, x, 0.25, rng=ak.PhiloxState(5, "cuda"))
    places = [0, 1, 2**31 - 1, 2**31, 2**31 + 4096, numel - 2, numel - 1]
    expected = torch.tensor([uniform_number(i, 5, 0, 0.25) for i in places]).half()
    assert torch.equal(delta[places].cpu(), expected)
    assert not delta.isnan().any()
    grad = torch.ones_like(x)
    ak.sign_step_(delta.zero_(), grad, x, 0.125, 0.25)
    assert (delta == 0.125).all()


def test_samples_of_every_size_and_more_than_blocks() -> None:
    """Lanes that are not all used, whole rounds of them, and a grid that goes round."""
    for shape in [(3, 1), (3, 1023), (3, 1024), (2, 4100), (40000, 12), (7, 3, 224, 224)]:
        delta, grad, x = draw(shape, 9, 3)

        def attack(delta: Tensor, grad: Tensor, x: Tensor) -> None:
            ak.l2_init_(delta, x, 0.5, -2.0, 2.0, rng=ak.PhiloxState(4, x.device))
            ak.l2_step_(delta, grad, x, 0.25, 0.5, -2.0, 2.0)

        on_both(attack, {"delta": delta, "grad": grad, "x": x})


@pytest.mark.parametrize(("step", "start_"), [(step, ak.uniform_init_), (l2_step, ak.l2_init_)], ids=["linf", "l2"])
def test_graph_replays_draw_fresh_noise(step: Callable, start_: Callable) -> None:
    grad, x = (tensor.cuda() for tensor in draw(CIFAR, 3, 2))
    rngs = [ak.PhiloxState(7, "cuda") for _ in range(2)]
    delta, out = torch.empty_like(x), torch.empty_like(x)

    def attack(delta: Tensor, out: Tensor, rng: ak.PhiloxState) -> None:
        start_(delta, x, EPSILON, LOWER, UPPER, rng=rng)
        step(delta, grad, x, out)

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attack(delta, out, rngs[0])
    assert rngs[0].draw == 0
    expected, expected_out = torch.empty_like(x), torch.empty_like(x)
    previous = None
    for replay in range(4):
        delta.fill_(float("nan"))
        graph.replay()
        attack(expected, expected_out, rngs[1])
        assert torch.equal(delta, expected)
        assert torch.equal(out, expected_out)
        assert rngs[0].draw == replay + 1
        assert previous is None or not torch.equal(delta, previous)
        previous = delta.clone()


def test_graph_of_an_optimizer_step_reads_its_learning_rate() -> None:
    weights = [tensor.cuda() for tensor in draw((300, 7), 4, 3)]
    lr = torch.tensor(0.1, device="cuda")
    pairs = []
    for _ in range(2):
        params = [torch.nn.Parameter(w.to(t)) for w, t in zip(weights, DTYPES, strict=True)]
        for param in params:
            param.grad = torch.full_like(param, 0.5)
        pairs.append((params, ak.MasterSGD(params, lr=lr, momentum=0.9, nesterov=True)))
    for _, optimizer in pairs:
        optimizer.step()  # makes the state
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pairs[0][1].step()
    for value in (0.1, 0.01, 0.3):
        lr.fill_(value)
        graph.replay()
        pairs[1][1].step()
        for one, other in zip(pairs[0][0], pairs[1][0], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("step", [ak.sign_step_, ak.l2_step_])
def test_runs_on_the_current_stream(step: Callable) -> None:
    x, grad = (tensor.cuda() for tensor in draw(CIFAR, 5, 2))
    late = torch.full_like(grad, float("nan"))
    expected, delta = torch.zeros_like(x), torch.zeros_like(x)
    step(expected, grad, x, ALPHA, EPSILON, LOWER, UPPER)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(grad)
        step(delta, late, x, ALPHA, EPSILON, LOWER, UPPER)
    assert not stream.query()  # nothing waited for the device
    stream.synchronize()
    assert torch.equal(delta, expected)


@pytest.mark.parametrize("step", [ak.sign_step_, ak.l2_step_])
def test_second_device(step: Callable) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    x, grad = (tensor.to("cuda:1") for tensor in draw(CIFAR, 6, 2))
    expected, delta = torch.zeros_like(x).cpu(), torch.zeros_like(x)
    with torch.cuda.device(0):
        step(delta, grad, x, ALPHA, EPSILON, LOWER, UPPER)
        assert torch.cuda.current_device() == 0
    with ak.backend("reference"):
        step(expected, grad.cpu(), x.cpu(), ALPHA, EPSILON, LOWER, UPPER)
    assert same(delta, expected)


def data_set(samples: int = 500) -> Tensor:
    return torch.randint(0, 256, (samples, *CIFAR[1:]), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(128, 3, 32, 32), (7, 3, 5, 9), (7, 1, 28, 28), (3, 5, 6, 6), (2, 300, 3, 3)])
def test_augment_with_guard_bands(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(8)
    images = torch.randint(0, 256, (50, *shape[1:]), dtype=torch.uint8, generator=generator)
    index = torch.randint(0, 50, shape[:1], generator=generator)
    mean, std = (0.1 + torch.rand(shape[1], generator=generator) for _ in range(2))
    for last, images_last, (padding, flip) in itertools.product((True, False), (True, False), ((4, True), (0, False))):
        results = []
        for device in ("cpu", "cuda"):
            buffer = torch.full((math.prod(shape) + 24,), 9.0, dtype=dtype, device=device)
            n, c, h, w = shape
            view = buffer[9 : 9 + math.prod(shape)]
            out = view.view(n, h, w, c).movedim(3, 1) if last else view.view(shape)
            given = images.to(device, memory_format=torch.channels_last if images_last else torch.contiguous_format)
            rng = ak.PhiloxState(2**61 + 3, device)
            rng.seek(2**35 + 1)
            for scales in ((mean.tolist(), std.tolist()), (mean.to(device), std.to(device))):
                with ak.backend("native" if device == "cuda" else "reference"):
                    ak.augment(given, index.to(device), *scales, rng=rng, padding=padding, flip=flip, out=out)
                results.append(buffer.clone())
            assert rng.draw == 2**35 + 1
        assert all(same(result, results[0]) for result in results[1:])


def test_augment_is_one_launch() -> None:
    images, index, rng = data_set().cuda(), torch.arange(128, device="cuda"), ak.PhiloxState(1, "cuda")
    out = ak.augment(images, index, MEAN, STD, rng=rng)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ak.augment(images, index, MEAN, STD, rng=rng, out=out)
        torch.cuda.synchronize()
    launched = [event.name for event in profile.events() if "kernel" in event.name]
    assert len(launched) == 1
    assert "augment_kernel" in launched[0]


def test_graph_of_an_augmentation_reads_images_and_epoch() -> None:
    images, index, rng = data_set(), torch.zeros(128, dtype=torch.int64, device="cuda"), ak.PhiloxState(7, "cuda")
    on_device = images.cuda()
    out = torch.empty(CIFAR, dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last)
    ak.augment(on_device, index, MEAN, STD, rng=rng, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ak.augment(on_device, index, MEAN, STD, rng=rng, out=out)
    for epoch in range(3):
        numbers = torch.randperm(500, generator=torch.Generator().manual_seed(epoch))[:128]
        index.copy_(numbers)
        rng.seek(epoch)
        graph.replay()
        host = ak.PhiloxState(7)
        host.seek(epoch)
        with ak.backend("reference"):
            expected = ak.augment(images, numbers, MEAN, STD, rng=host, dtype=torch.bfloat16)
        assert same(out, expected)


def sgd_arguments(shapes: list[tuple[int, ...]], device: str) -> tuple:
    generator = torch.Generator().manual_seed(8)
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    grads = [torch.randn(shape, generator=generator) for shape in shapes]
    params = [w.to(device, DTYPES[i % 3]) for i, w in enumerate(weights)]
    none = torch.empty(0, device=device)
    return (
        params,
        [g.to(device, DTYPES[i // 3 % 3]) for i, g in enumerate(grads)],
        [p.float() if i % 2 and p.dtype != torch.float32 else none for i, p in enumerate(params)],
        [torch.zeros_like(p, dtype=torch.float32 if i % 2 else p.dtype) for i, p in enumerate(params)],
        [torch.full((), i % 2, dtype=torch.int64, device=device) for i in range(len(params))],
    )


@pytest.mark.parametrize("count", [1, 64, 65, 560, 561])
def test_sgd_lists_up_to_and_beyond_one_launch(count: int) -> None:
    sizes = [0, 1, 3, 4, 5, 4095, 4096, 4097, 9001]
    shapes = [(sizes[i % len(sizes)],) for i in range(count)]
    settings = (0.9, 0.1, 5e-4, False, True)
    host, device = sgd_arguments(shapes, "cpu"), sgd_arguments(shapes, "cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(2):
            lr = torch.tensor(0.1)
            ak.dispatch.pick("native", "sgd_step_")(*device, lr.cuda(), None, None, *settings)
        torch.cuda.synchronize()
    for _ in range(2):
        ak.backends.reference.sgd_step_(*host, torch.tensor(0.1), None, None, *settings)
    for one, other in zip(itertools.chain(*device), itertools.chain(*host), strict=True):
        assert same(one, other)
    launches = sum("sgd_step" in event.name for event in profile.events())
    assert launches == 2 * (1 if count <= 560 else 2)
