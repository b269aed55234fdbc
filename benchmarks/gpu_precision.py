"""Fast training steps of PreActResNet18 in every precision: finite, recovering from an overflow, and how long.

    python benchmarks/gpu_precision.py RESULT.json [--images DIR] [--steps N] [--batch N] [--width N] [--device cuda]

DIR holds train/ and test/ of class folders, CIFAR-10's for one; without it the images are made up.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import freefast as ff
from freefast.data import ImageData
from freefast.precision import PRECISIONS
from freefast.reporting import environment
from freefast.training import setup
from freefast.training.state import TrainState


def batches(data: ImageData, config: ff.TrainConfig, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` batches on the device, channels last."""
    source = setup.make_batches(config, data, torch.device(config.device))
    epoch = 0
    while count > 0:
        for size in source.epoch(epoch):
            if count > 0 and size == config.batch_size:
                yield source.read(size)
                count -= 1
        epoch += 1


def seconds(call: Callable[[], object], device: str, calls: int = 10) -> float:
    """Mean time of a call, the device's work included."""
    call()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def recovers(state: TrainState, step: Callable[[], tuple[Tensor, Tensor]]) -> bool:
    """Whether an overflow leaves the weights alone and halves the scale, and the next step moves the weights."""
    weights = next(state.model.parameters())
    before, scale = weights.detach().clone(), state.scaler.get_scale()
    overflow = weights.register_hook(lambda grad: grad * float("inf"))
    step()
    overflow.remove()
    kept = torch.equal(weights, before) and state.scaler.get_scale() == scale / 2
    step()
    return kept and not torch.equal(weights, before)


def run(data: ImageData, config: ff.TrainConfig, steps: int) -> dict[str, Any]:
    """The steps, and what they took."""
    state = setup.make_state(config, data, updates=steps + 50, device=torch.device(config.device))
    step = setup.make_step(config)
    losses = []
    for images, labels in batches(data, config, steps):
        losses.append(step(state, images, labels)[0])
    values = torch.stack(losses).tolist()
    row: dict[str, Any] = {"precision": config.precision, "loss_scale": config.loss_scale, "steps": steps}
    row |= {"first_loss": values[0], "last_loss": values[-1], "finite": all(map(math.isfinite, values))}
    images, labels = next(batches(data, config, 1))
    if config.loss_scale == "dynamic":
        row["recovers_from_overflow"] = recovers(state, lambda: step(state, images, labels))
    whole = seconds(lambda: step(state, images, labels), config.device)
    state.optimizer.zero_grad(set_to_none=False)  # the gradients are scaled ones
    update = seconds(state.optimizer.step, config.device)
    row |= {"step_ms": whole * 1e3, "update_ms": update * 1e3, "update_share": update / whole}
    return row


def main() -> int:
    """Run all precisions; 0 where every loss was finite and every overflow overcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--device", default="cuda")
    for name, default in (("steps", 200), ("batch", 128), ("width", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rows = []
    for precision in PRECISIONS:
        config = ff.TrainConfig(
            method="fast", precision=precision, device=options.device, batch_size=options.batch, width=options.width,
            model="preactresnet18", dataset="imagefolder" if options.images else "fake", data_root=options.images,
            limit_train=options.batch * min(options.steps, 200), limit_test=10, threads=None, augment=True,
        )  # fmt: skip
        data = setup.make_data(config)
        rows.append(run(data, config, options.steps))
        print(rows[-1], flush=True)
    facts = environment.describe(options.device)
    options.result.write_text(json.dumps({"rows": rows, "environment": facts}, indent=2) + "\n")
    return int(not all(row["finite"] and row.get("recovers_from_overflow", True) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
