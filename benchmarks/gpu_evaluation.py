"""PGD-50 of PreActResNet18 over 10,000 images: the evaluation against a plain PyTorch loop, and in half precision.

    python benchmarks/gpu_evaluation.py RESULT.json [--images DIR] [--samples N] [--plain N] [--batch N] [--width N]
        [--train-steps N] [--precisions fp32 ...] [--device cuda]

DIR holds train/ and test/ of class folders, CIFAR-10's for one; without it the images are made up. A little Fast
training first; epsilon is the one that half of the images withstand. Both sides compute in float32 without TF32, with
the same noise and the same rule: fooled at any step is fooled. The plain loop makes every step of every batch, on the
first N images; images/s make up for that.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comparison import half_robust_epsilon
from gpu_precision import batches
from torch import Tensor, nn

import advkernels as ak
import freefast as ff
from freefast.data import ImageData, Split
from freefast.precision import PRECISIONS
from freefast.reporting import environment
from freefast.training import setup

STEPS = 50
SEED = 0  # of the noise
EQUAL = 0.999
"""Share of the plain loop's verdicts that must be ours."""


def train(config: ff.TrainConfig, data: ImageData, steps: int) -> nn.Module:
    """So many Fast steps; the model in eval mode, its weights frozen."""
    state, step = setup.make_state(config, data, steps, torch.device(config.device)), setup.make_step(config)
    for images, labels in batches(data, config, steps):
        step(state, images, labels)
    return state.model.eval().requires_grad_(False)


def pick(data: ImageData, samples: int) -> Split:
    """So many test images; where there are fewer, all images again and again with noise of 8/255."""
    if samples <= len(data.test):
        return data.test.take(samples, seed=0)
    images, labels = torch.cat([data.train.images, data.test.images]), torch.cat([data.train.labels, data.test.labels])
    rows = torch.arange(samples) % len(labels)
    noise = torch.randint(-8, 9, (samples, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    return Split(images=(images[rows] + noise).clamp(0, 255).to(torch.uint8), labels=labels[rows])


def half_robust(model: nn.Module, split: Split, threat: ff.ThreatModel) -> ff.ThreatModel:
    """The threat model whose epsilon half of 500 images withstand for 10 steps."""
    few = split.take(500, seed=0)

    def at(epsilon: float) -> ff.ThreatModel:
        return ff.ThreatModel(epsilon=epsilon, mean=threat.mean, std=threat.std)

    return at(half_robust_epsilon(lambda epsilon: ff.evaluate(model, few, at(epsilon), steps=(10,)).pgd[10]))


def plain(
    model: nn.Module, split: Split, threat: ff.ThreatModel, batch: int, device: str, form: torch.memory_format
) -> Tensor:
    """(N,) bool: right at every iterate of PGD-50, each made by eager PyTorch for all images of a batch."""
    epsilon, alpha, lower, upper = (
        torch.tensor(values, device=device).view(-1, 1, 1)
        for values in (threat.model_epsilon, threat.step(threat.epsilon / 4), threat.lower, threat.upper)
    )
    robust = []
    for rows in torch.arange(len(split)).split(batch):
        pixels = split.images[rows].to(device).float().div_(255)
        x = threat.normalize(pixels.to(memory_format=form))
        labels, right = split.labels[rows].to(device), torch.ones(len(rows), dtype=torch.bool, device=device)
        rng = ak.PhiloxState(SEED, device)
        delta = ak.uniform_init(
            x, threat.model_epsilon, threat.lower, threat.upper, rng=rng, sample_index=rows.to(device)
        )
        for _ in range(STEPS):
            delta.requires_grad_()
            logits = model(x + delta)
            right &= logits.detach().argmax(1) == labels
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), delta)
            delta = torch.clamp(delta.detach() + alpha * gradient.sign(), -epsilon, epsilon)
            delta = torch.max(torch.min(delta, upper - x), lower - x)
        with torch.no_grad():
            robust.append(right & (model(x + delta).argmax(1) == labels))
    return torch.cat(robust).cpu()


def timed(device: str, call: Callable[..., Tensor], *arguments: Any) -> tuple[float, Tensor]:
    """Seconds, the device's work included, and the verdicts."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    robust = call(*arguments)
    wait()
    return time.perf_counter() - start, robust


def ours(model: nn.Module, split: Split, threat: ff.ThreatModel, batch: int, precision: ff.Precision) -> Tensor:
    """(N,) bool: right under PGD-50."""
    scores = ff.evaluate(model, split, threat, steps=(STEPS,), batch_size=batch, seed=SEED, precision=precision)
    return scores.verdicts.robust(STEPS)


def measure(
    model: nn.Module, split: Split, threat: ff.ThreatModel, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row a contender: the plain loop in two memory formats, the evaluation in some precisions."""
    few = Split(images=split.images[: options.plain], labels=split.labels[: options.plain])
    device, batch, rows, verdicts = options.device, options.batch, [], []
    for name, form in (("plain", torch.contiguous_format), ("plain, channels last", torch.channels_last)):
        twin = copy.deepcopy(model).to(memory_format=form)
        seconds, robust = timed(device, plain, twin, few, threat, batch, device, form)
        rows.append(row(name, seconds, robust))
        print(rows[-1], flush=True)
        verdicts.append(robust)
    for name in options.precisions:
        precision = ff.Precision(name=name)
        twin = precision.prepare(copy.deepcopy(model))
        ours(twin, few, threat, batch, precision)
        seconds, robust = timed(device, ours, twin, split, threat, batch, precision)
        equal = [(robust[: len(few)] == wanted).double().mean().item() for wanted in verdicts]
        rows.append(row(name, seconds, robust) | {"equal_verdicts": equal[0], "equal_channels_last": equal[1]})
        print(rows[-1], flush=True)
    return rows


def row(name: str, seconds: float, robust: Tensor) -> dict[str, Any]:
    """What a contender took."""
    result = {"contender": name, "samples": len(robust), "robust": robust.double().mean().item()}
    return result | {"seconds": seconds, "images_per_second": len(robust) / seconds}


def main() -> int:
    """Train, evaluate, compare; 0 where float32's verdicts are the plain loop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    numbers = (("samples", 10000), ("plain", 1000), ("batch", 1000), ("width", 64), ("train-steps", 300))
    for name, default in numbers:
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    config = ff.TrainConfig(
        method="fast", device=options.device, width=options.width, model="preactresnet18", augment=False, lr_max=0.05,
        dataset="imagefolder" if options.images else "fake", data_root=options.images,
    )  # fmt: skip
    data = setup.make_data(config)
    model, split = train(config, data, options.train_steps), pick(data, options.samples)
    threat = half_robust(model, split, setup.make_threat(config, data))
    rows = measure(model, split, threat, options)
    facts = {"epsilon": threat.epsilon, "batch": options.batch, "width": options.width, "steps": STEPS}
    result = {"rows": [row | facts for row in rows], "environment": environment.describe(options.device)}
    options.result.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row["equal_channels_last"] < EQUAL for row in rows if row["contender"] == "fp32"))


if __name__ == "__main__":
    sys.exit(main())
