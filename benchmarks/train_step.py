"""Time of a training step of PreActResNet18, batch 128: ours as a graph and op by op, and the loop in plain PyTorch.

    python benchmarks/train_step.py RESULT.json [--steps N] [--batch N] [--width N] [--samples N] [--budget S]
        [--only WORD ...] [--skip WORD ...] [--device cuda]

Fast with a random start and Free with 8 replays, on made-up images of CIFAR-10's size and number. The plain loop
(`plain_loops.py`) is autocast to float16, GradScaler, torch.optim.SGD and a DataLoader, as it is and with
torch.compile. Times have the feeding of batches in them. `launches` are kernels and graphs that the host launches in a
step. A step of Free is 8 updates. A variant is left out where its name lacks a word of --only or has one of --skip, or
where the budget of seconds would not last.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from plain_loops import PlainLoop, loader

import freefast as ff
from freefast.data import CIFAR10_MEAN, CIFAR10_STD, ImageData, Split
from freefast.reporting import environment
from freefast.settings import GraphMode
from freefast.training import setup
from freefast.training.captured import CapturedStep

EPOCH = 50_000
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")  # and their variants, such as cudaLaunchKernelExC
WARM_UP = 6  # steps: three op by op, the capture, replays
PROFILED = 3
LONGEST = 14  # kernels that a row names
SECONDS = {False: 6, True: 45}
"""What a variant may cost, without and with torch.compile."""

Steps = Iterator[torch.Tensor]
"""Makes a step each time it is asked, and gives the sum of losses on the device."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train."""

    method: str
    who: str
    precision: str = "amp-fp16"
    graph: GraphMode = "off"
    compile: bool = False
    search: bool = False
    "let cuDNN search for algorithms, not deterministic"

    @property
    def name(self) -> str:
        """As the table and the options call it."""
        how = {"auto": "graph", "on": "graph", "off": "eager"}[self.graph]
        extra = [word for word, chosen in (("compile", self.compile), ("search", self.search)) if chosen]
        return " ".join([self.method, self.who, self.precision, how, *extra])


def variants() -> list[Variant]:
    """What takes little time first, for both methods; then what compiles."""
    ours: Callable[..., Variant] = partial(Variant, who="ours", graph="auto")
    plain: Callable[..., Variant] = partial(Variant, who="plain")
    found = []
    for method in ("fast", "free"):
        found.append(plain(method=method))
        found += [ours(method=method, precision=name) for name in ("half-bf16", "half-fp16", "amp-bf16", "fp32")]
        found += [ours(method=method, precision=name, graph="off") for name in ("half-bf16", "fp32")]
        found.append(ours(method=method, precision="half-bf16", search=True))
    for make in (plain, partial(ours, precision="half-bf16", search=True)):
        found += [make(method=method, compile=True) for method in ("fast", "free")]
    return found


def made_up(samples: int) -> ImageData:
    """Random pixels and labels."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        return Split(images=images, labels=torch.randint(0, 10, (count,), generator=random))

    classes = tuple(map(str, range(10)))
    return ImageData(
        name="made up", classes=classes, mean=CIFAR10_MEAN, std=CIFAR10_STD, train=split(samples), test=split(10)
    )


def our_steps(variant: Variant, config: ff.TrainConfig, data: ImageData) -> Steps:
    """The project's own step, on batches of the device."""
    device = torch.device(config.device)
    batches = setup.make_batches(config, data, device)
    updates = config.epochs * len(batches) * config.updates_per_batch
    state = setup.make_state(config, data, updates, device)
    if variant.compile:
        state.model = torch.compile(state.model, dynamic=False)
    step = CapturedStep(state, setup.make_step(config), batches, config.batch_size, variant.graph)
    for epoch in range(config.epochs):
        step.begin_epoch()
        for count in batches.epoch(epoch):
            step(count)
            yield step.sums[0]


def plain_steps(variant: Variant, config: ff.TrainConfig, data: ImageData) -> Steps:
    """The loop in plain PyTorch."""
    batches = loader(data, config.batch_size, config.device)
    updates = config.epochs * len(batches) * config.updates_per_batch
    model, threat = (
        setup.make_model(config, data).to(memory_format=torch.contiguous_format),
        setup.make_threat(config, data),
    )
    loop = PlainLoop(model, threat, config.device, lr=config.lr_max, updates=updates)
    if variant.compile:
        loop.model = torch.compile(loop.model, dynamic=False)
    step = loop.fast if variant.method == "fast" else loop.free
    for _ in range(config.epochs):
        for images, labels in batches:
            step(images.to(config.device, non_blocking=True), labels.to(config.device, non_blocking=True))
            yield loop.sums[0]


def profile(steps: Steps, device: str) -> dict[str, Any]:
    """Kernels and graphs that the host launches in a step, and the kernels that take most of the device's time."""
    if device != "cuda":
        return {"launches": None}
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            next(steps)
        torch.cuda.synchronize()
    events = profiler.key_averages()
    kernels = sorted((event for event in events if event.self_device_time_total > 0), key=_device_time, reverse=True)
    return {
        "launches": sum(event.count for event in events if event.key.startswith(LAUNCHES)) / PROFILED,
        "kernels_ms": sum(map(_device_time, kernels)) / PROFILED / 1e3,
        "kernels": [
            {"name": event.key[:90], "ms": _device_time(event) / PROFILED / 1e3, "calls": event.count / PROFILED}
            for event in kernels[:LONGEST]
        ],
    }


def _device_time(event: Any) -> float:
    """Microseconds of an event's own work on the device."""
    return float(event.self_device_time_total)


def measure(steps: Steps, count: int, device: str) -> dict[str, Any]:
    """Milliseconds of a step and of the host's part in it; peak memory; the profile of a step."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(WARM_UP):
        next(steps)
    wait()
    start = time.perf_counter()
    for _ in range(count):
        loss_sum = next(steps)
    host = time.perf_counter() - start
    wait()
    whole = time.perf_counter() - start
    row: dict[str, Any] = {"step_ms": whole / count * 1e3, "host_ms": host / count * 1e3}
    row["finite"] = bool(loss_sum.isfinite())
    row["memory_mib"] = torch.cuda.max_memory_reserved() / 2**20 if device == "cuda" else None
    return row | profile(steps, device)


def run(variant: Variant, data: ImageData, options: argparse.Namespace) -> dict[str, Any]:
    """One variant's row."""
    config = ff.TrainConfig(
        method=variant.method, dataset="cifar10", precision=variant.precision, device=options.device, epochs=1000,
        batch_size=options.batch, width=options.width, graph=variant.graph,
    )  # fmt: skip
    is_ours = variant.who == "ours"
    count = options.steps if variant.method == "fast" else max(options.steps // 6, 2)
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with setup.runtime("auto", None, 0, device) if is_ours else nullcontext():
        if variant.search:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
        steps = (our_steps if is_ours else plain_steps)(variant, config, data)
        row = measure(steps, count, options.device)
        steps.close()
    return {"epoch_s": row["step_ms"] / 1e3 * EPOCH / options.batch} | row


def attempt(variant: Variant, data: ImageData, options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """A row, or why there is none."""
    start = time.perf_counter()
    row: dict[str, Any] = {"variant": variant.name}
    if start + SECONDS[variant.compile] > deadline:
        return row | {"error": "left out: the budget of seconds would not last"}
    try:
        row |= run(variant, data, options)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    gc.collect()
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """One line a variant; `times` is how many steps fit one of the plain loop, op by op, of the same method."""
    heads = ("step_ms", "host_ms", "epoch_s", "times", "launches", "memory_mib")
    plain = {row["variant"]: row.get("step_ms") for row in rows}
    lines = [" ".join([f"{'variant':42}", *(f"{head:>10}" for head in heads)])]
    for row in rows:
        base = plain.get(f"{row['variant'].split()[0]} plain amp-fp16 eager")
        numbers = row | {"times": base / row["step_ms"] if base and "step_ms" in row else None}
        cells = [f"{numbers[head]:10.2f}" if numbers.get(head) is not None else f"{'-':>10}" for head in heads]
        note = row.get("error", "" if row.get("finite", True) else "loss not finite")
        lines.append(" ".join([f"{row['variant']:42}", *cells, note]).rstrip())
    return "\n".join(lines)


def main() -> int:
    """Measure all variants; 0 where none failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", default="cuda")
    for name, default in (("steps", 60), ("batch", 128), ("width", 64), ("samples", EPOCH)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--budget", type=float, default=150.0, help="seconds")
    for name in ("only", "skip"):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="WORD")
    options = parser.parse_args()
    deadline = time.perf_counter() + options.budget
    data = made_up(options.samples)
    rows = []
    for variant in variants():
        words = variant.name.split()
        if not set(options.only) <= set(words) or set(options.skip) & set(words):
            continue
        rows.append(attempt(variant, data, options, deadline))
        print({name: value for name, value in rows[-1].items() if name != "kernels"}, flush=True)
    facts = environment.describe(options.device)
    options.result.write_text(json.dumps({"rows": rows, "environment": facts}, indent=2) + "\n")
    print(table(rows))
    return int(any("error" in row and "seconds" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
