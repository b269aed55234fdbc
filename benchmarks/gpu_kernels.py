"""Every operation on the GPU against eager PyTorch, torch.compile and a device-to-device copy, by CUDA events.

    python benchmarks/gpu_kernels.py RESULT.json

Large tensors show the bandwidth: inputs take turns, so that no cache holds them. A CIFAR-10 batch is timed inside a
CUDA graph, where only the kernel counts. Each contender's equality with the reference is checked first.
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_augment import MEAN, PADDING, STD, eager
from gpu_norms import SHAPES, norm_operations

import advkernels as ak
from advkernels import dispatch
from freefast import models
from freefast.reporting import environment

ALPHA, EPSILON = 2 / 255, 8 / 255
L2_ALPHA, L2_EPSILON = 15 / 255, 128 / 255
LARGE = (21845, 3, 32, 32)  # 256 MiB in float32
SMALL = (128, 3, 32, 32)
SETS = 3  # of inputs that take turns: 768 MiB and more a tensor, many times the L2
CALLS = 20  # in one captured graph

Call = Callable[[int], object]


def time_us(call: Call, repeats: int = 30) -> float:
    """Median microseconds of a call on one input set after the other, by events."""
    for i in range(2 * SETS):
        call(i % SETS)
    pairs = []
    for i in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(i % SETS)
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs) * 1e3


def graph_us(call: Call) -> float:
    """Microseconds of a call inside a graph of many."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(SETS):
            call(i)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(CALLS):
            call(i % SETS)
    return time_us(lambda i: graph.replay()) / CALLS


def formula(delta: torch.Tensor, grad: torch.Tensor, x: torch.Tensor) -> None:
    d = torch.clamp(delta + ALPHA * torch.sign(grad), -EPSILON, EPSILON)
    delta.copy_(torch.max(torch.min(d, 1 - x), 0 - x))


def eager_init(delta: torch.Tensor, x: torch.Tensor) -> None:
    delta.uniform_(-EPSILON, EPSILON)
    delta.copy_(torch.max(torch.min(delta, 1 - x), 0 - x))


def norms(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).norm(dim=1, dtype=torch.float32).view(-1, 1, 1, 1)


def l2_formula(delta: torch.Tensor, grad: torch.Tensor, x: torch.Tensor) -> None:
    d = delta + L2_ALPHA * grad / norms(grad)
    d = d * (L2_EPSILON / norms(d).clamp(min=L2_EPSILON))
    delta.copy_(torch.max(torch.min(d, 1 - x), 0 - x))


def eager_l2_init(delta: torch.Tensor, x: torch.Tensor) -> None:
    delta.normal_()
    d = delta * (L2_EPSILON * torch.rand(len(x), 1, 1, 1, device=x.device) / norms(delta))
    delta.copy_(torch.max(torch.min(d, 1 - x), 0 - x))


def on(name: str, call: Call) -> Call:
    """The call on a named backend."""

    def run(i: int) -> object:
        with ak.backend(name):
            return call(i)

    return run


def image_operations(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, dict[str, tuple[int, Call]]]:
    """By operation and contender: bytes a call moves at least, and the call."""
    xs = [torch.rand(shape, device="cuda").to(dtype) for _ in range(SETS)]
    grads = [torch.randn(shape, device="cuda").to(dtype) for _ in range(SETS)]
    deltas = [torch.zeros_like(x) for x in xs]
    outs = [torch.empty_like(x) for x in xs]
    rng = ak.PhiloxState(0, "cuda")
    size = xs[0].nbytes
    compiled, compiled_init = torch.compile(formula), torch.compile(eager_init)
    compiled_l2, compiled_l2_init = torch.compile(l2_formula), torch.compile(eager_l2_init)
    ours = [name for name in ("native", "triton") if dispatch.why_missing(name, "cuda") is None]
    step = lambda i: ak.sign_step_(deltas[i], grads[i], xs[i], ALPHA, EPSILON)  # noqa: E731
    step_out = lambda i: ak.sign_step_(deltas[i], grads[i], xs[i], ALPHA, EPSILON, out=outs[i])  # noqa: E731
    init = lambda i: ak.uniform_init_(deltas[i], xs[i], EPSILON, rng=rng)  # noqa: E731
    l2_step = lambda i: ak.l2_step_(deltas[i], grads[i], xs[i], L2_ALPHA, L2_EPSILON)  # noqa: E731
    l2_init = lambda i: ak.l2_init_(deltas[i], xs[i], L2_EPSILON, rng=rng)  # noqa: E731
    check(xs[0], grads[0], ours)
    return {
        "copy": {"copy_": (2 * size, lambda i: outs[i].copy_(xs[i]))},
        "sign_step_": {
            **{name: (4 * size, on(name, step)) for name in ours},
            "torch.compile": (4 * size, lambda i: compiled(deltas[i], grads[i], xs[i])),
            "eager": (4 * size, lambda i: formula(deltas[i], grads[i], xs[i])),
        },
        "sign_step_ with out": {name: (5 * size, on(name, step_out)) for name in ours},
        "uniform_init_": {
            **{name: (2 * size, on(name, init)) for name in ours},
            "torch.compile": (2 * size, lambda i: compiled_init(deltas[i], xs[i])),
            "eager": (2 * size, lambda i: eager_init(deltas[i], xs[i])),
        },
        "l2_step_": {
            **{name: (4 * size, on(name, l2_step)) for name in ours},
            "torch.compile": (4 * size, lambda i: compiled_l2(deltas[i], grads[i], xs[i])),
            "eager": (4 * size, lambda i: l2_formula(deltas[i], grads[i], xs[i])),
        },
        "l2_init_": {
            **{name: (2 * size, on(name, l2_init)) for name in ours},
            "torch.compile": (2 * size, lambda i: compiled_l2_init(deltas[i], xs[i])),
            "eager": (2 * size, lambda i: eager_l2_init(deltas[i], xs[i])),
        },
    }


def check(x: torch.Tensor, grad: torch.Tensor, names: list[str]) -> None:
    """Every backend's bits on these very inputs are the reference's."""
    results = []
    for name in ["reference", *names]:
        with ak.backend(name):
            delta = ak.uniform_init(x, EPSILON, rng=ak.PhiloxState(1, "cuda"))
            stepped = ak.sign_step(delta, grad, x, ALPHA, EPSILON)
            delta = ak.l2_init(x, L2_EPSILON, rng=ak.PhiloxState(1, "cuda"))
            results.append(torch.stack([stepped, ak.l2_step_(delta, grad, x, L2_ALPHA, L2_EPSILON)]))
    assert all(torch.equal(results[0], other) for other in results[1:])


def augment_operation(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, dict[str, tuple[int, Call]]]:
    """As `image_operations`: a batch of training images out of a data set on the device."""
    count = shape[0]
    images = torch.randint(0, 256, (max(count, 50000), *shape[1:]), dtype=torch.uint8, device="cuda")
    batches = [torch.randperm(len(images), device="cuda")[:count] for _ in range(SETS)]
    outs = [torch.empty(shape, dtype=dtype, device="cuda", memory_format=torch.channels_last) for _ in range(SETS)]
    shift = torch.randint(0, 2 * PADDING + 1, (2, count), device="cuda")
    flip = torch.rand(count, device="cuda") < 0.5
    mean, std = (torch.tensor(values, device="cuda").view(-1, 1, 1) for values in (MEAN, STD))
    rng = ak.PhiloxState(0, "cuda")
    ours = [name for name in ("native", "triton") if dispatch.why_missing(name, "cuda") is None]

    def plain(index: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return out.copy_(eager(images[index], shift, flip, mean, std))

    compiled = torch.compile(plain)
    run = lambda i: ak.augment(images, batches[i], MEAN, STD, rng=rng, out=outs[i])  # noqa: E731
    results = [on(name, run)(0).clone() for name in ["reference", *ours]]
    assert all(torch.equal(results[0], other) for other in results[1:])
    size = outs[0].nbytes + outs[0].numel()
    return {
        "augment": {
            **{name: (size, on(name, run)) for name in ours},
            "torch.compile": (size, lambda i: compiled(batches[i], outs[i])),
            "eager": (size, lambda i: plain(batches[i], outs[i])),
        }
    }


class ForeachMaster:
    """SGD on float32 masters with foreach operations and copies back into the half-precision weights."""

    def __init__(self, params: list[torch.Tensor]) -> None:
        self.params, self.masters = params, [p.detach().float() for p in params]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.optimizer = torch.optim.SGD(self.masters, lr=0.1, momentum=0.9, weight_decay=5e-4, foreach=True)

    @torch.no_grad()
    def step(self) -> None:
        torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.params])
        self.optimizer.step()
        torch._foreach_copy_(self.params, self.masters)


def sgd_operations() -> dict[str, dict[str, tuple[int, Call]]]:
    """The update of PreActResNet18 in bfloat16 with float32 masters: 20 bytes a weight."""
    model = models.build("preactresnet18", num_classes=10, channels=3).to("cuda", torch.bfloat16)
    params = list(model.parameters())
    for param in params:
        param.grad = torch.randn_like(param)
    count = sum(param.numel() for param in params) * 20
    lr = torch.tensor(0.1, device="cuda")
    calls: dict[str, tuple[int, Call]] = {}
    for name in ("native", "triton"):
        if dispatch.why_missing(name, "cuda") is None:
            optimizer = ak.MasterSGD(params, lr=lr, momentum=0.9, weight_decay=5e-4)
            calls[name] = (count, on(name, lambda i, optimizer=optimizer: optimizer.step()))
    foreach = ForeachMaster(params)
    calls["foreach and copies"] = (count, lambda i: foreach.step())
    return {"sgd_step_": calls}


def measure(
    operations: dict[str, dict[str, tuple[int, Call]]], timer: Callable[[Call], float], case: str
) -> list[dict]:
    """A row an operation and contender, printed as they come."""
    rows = []
    for operation, contenders in operations.items():
        for name, (size, call) in contenders.items():
            try:
                microseconds = timer(call)
            except RuntimeError as error:  # not every contender can be captured
                print(f"{case}: {operation} {name}: {str(error).splitlines()[0]}", flush=True)
                torch.cuda.synchronize()
                continue
            row = {"case": case, "operation": operation, "contender": name}
            rows.append(row | {"us": round(microseconds, 2), "GB/s": round(size / microseconds / 1e3, 1)})
            print(*rows[-1].values(), flush=True)
    return rows


def main(path: Path) -> None:
    """Measure all and write the result file."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype)[6:]
        for operations in (image_operations, augment_operation):
            rows += measure(operations(SMALL, dtype), graph_us, f"{name} {SMALL} in a graph")
            rows += measure(operations(LARGE, dtype), time_us, f"{name} {LARGE}")
            torch.cuda.empty_cache()
        for shape in SHAPES:
            rows += measure(norm_operations(shape, dtype, SETS), graph_us, f"{name} {shape} in a graph")
    rows += measure(sgd_operations(), graph_us, "bfloat16 PreActResNet18 in a graph")
    rows += measure(sgd_operations(), time_us, "bfloat16 PreActResNet18")
    path.write_text(json.dumps({"rows": rows, "environment": environment.describe("cuda")}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
