"""Small training states and batches, and the plain loop over a method's step."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast import ThreatModel, models
from freefast.data import CIFAR10_MEAN, CIFAR10_STD, Loader, Split
from freefast.models.norm import BatchNormReLU
from freefast.precision import FP32, Precision
from freefast.training import schedules
from freefast.training.captured import Step
from freefast.training.fast import fast_step
from freefast.training.free import free_step
from freefast.training.pgd import pgd_step
from freefast.training.standard import standard_step
from freefast.training.state import TrainState

BATCH, SAMPLES, REPLAYS, UPDATES, SIZE = 6, 28, 2, 20, 12  # four batches of 6 and one of 4
METHODS = ["free", "fast zero", "fast random", "fast previous", "n-fgsm", "grad-align", "pgd", "standard"]


def make_step(method: str) -> Step:
    name, _, start = method.partition(" ")
    return {
        "free": partial(free_step, replays=REPLAYS),
        "fast": partial(fast_step, alpha=10 / 255, delta_init=start),
        "n-fgsm": partial(fast_step, alpha=8 / 255, delta_init="random", noise_magnitude=2.0, clip=False),
        "grad-align": partial(fast_step, alpha=10 / 255, delta_init="zero", grad_align=0.2),
        "pgd": partial(pgd_step, alpha=2 / 255, steps=2),
        "standard": standard_step,
    }[name]


def epochs_of(method: str) -> int:
    """Epochs of `UPDATES` updates."""
    return UPDATES // 5 // (REPLAYS if method == "free" else 1)


def make_loader() -> Loader:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)
    split = Split(images=images, labels=torch.randint(0, 10, (SAMPLES,), generator=random))
    settings = {"mean": CIFAR10_MEAN, "std": CIFAR10_STD, "shuffle": True, "augment": True, "seed": 2}
    return Loader(split, batch_size=BATCH, **settings)


def small_preactresnet() -> nn.Module:
    """The first three blocks of PreActResNet18, two stages: shortcuts as they are, and a projected one."""
    model = models.build("preactresnet18", 10, 3, width=8)
    model.blocks, model.norm, model.linear = model.blocks[:3], BatchNormReLU(16), nn.Linear(16, 10)
    return model


def make_state(
    device: str, precision: Precision = FP32, model: nn.Module | None = None, **options: float
) -> TrainState:
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = small_preactresnet()
    model = precision.prepare(model.to(device, memory_format=torch.channels_last)).train()
    masters = precision.master_weights
    optimizer = ak.MasterSGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, master_weights=masters)
    delta = torch.zeros(BATCH, 3, SIZE, SIZE, device=device)
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=schedules.build("cyclic", optimizer, UPDATES),
        threat=ThreatModel(epsilon=8 / 255, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        rng=ak.PhiloxState(2**33 + 5, device),
        delta=delta.contiguous(memory_format=torch.channels_last),
        precision=precision,
        **options,
    )


def train_plainly(state: TrainState, step: Step, epochs: Iterable[int]) -> list[list]:
    """A loop that hands the step each batch and waits for its numbers.

    Returns: loss sum, hits and the gradients' health, epoch by epoch
    """
    device, sums = state.delta.device, []
    for epoch in epochs:
        loss_sum, hits = 0.0, 0
        for batch in make_loader().epoch(epoch):
            images, labels = batch.images.to(device), batch.labels.to(device)
            loss, logits = step(state, images, labels)
            loss_sum += (loss * len(labels)).item()
            hits += (logits.argmax(1) == labels).sum().item()
        sums.append([loss_sum, hits, state.health.take()])
    return sums


def assert_same(ours: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
