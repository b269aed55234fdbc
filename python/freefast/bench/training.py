"""A variant's training, a step each time it is asked for one."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast.bench import plain
from freefast.bench.variants import Variant
from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.precision import Precision
from freefast.training import setup
from freefast.training.captured import CapturedStep

Steps = Generator[Tensor, None, None]


class Training(NamedTuple):
    """A model, and what trains it."""

    model: nn.Module
    """In train mode."""
    steps: Steps
    """Each makes a step, the feeding of its batch included, and gives a sum of losses on the device, 0-dim."""


def make(variant: Variant, config: TrainConfig, data: ImageData) -> Training:
    """The training of a variant for the config's epochs; nothing is trained yet.

    Raises: UserError where the precision does not run on the device.
    """
    return _ours(variant, config, data) if variant.who == "ours" else _plain(variant, config, data)


@contextmanager
def runtime(variant: Variant, device: torch.device) -> Iterator[None]:
    """What our steps run in, cuDNN being deterministic or searching; PyTorch as it is for the plain loop."""
    if variant.who == "plain":
        yield
        return
    with setup.runtime("auto", None, 0, device), setup.cudnn(search=variant.search):
        yield


def _ours(variant: Variant, config: TrainConfig, data: ImageData) -> Training:
    device = torch.device(config.device)
    batches = setup.make_batches(config, data, device)
    updates = config.epochs * len(batches) * config.updates_per_batch
    state = setup.make_state(config, data, updates, device)
    step = CapturedStep(state, setup.make_step(config), batches, config.batch_size, variant.graph)

    def steps() -> Steps:
        for epoch in range(config.epochs):
            step.begin_epoch()
            for count in batches.epoch(epoch):
                step(count)
                yield step.sums[0]

    return Training(state.model, steps())


def _plain(variant: Variant, config: TrainConfig, data: ImageData) -> Training:
    batches = plain.loader(data, config)
    updates = config.epochs * len(batches) * config.updates_per_batch
    model = setup.make_model(config, data).to(memory_format=torch.contiguous_format)
    dtype = setup.make_precision(config).dtype
    half = None if dtype == torch.float32 else dtype
    loop = plain.PlainLoop(config, model, setup.make_threat(config, data), updates, half)
    if variant.compile:
        model.compile(dynamic=False)

    def steps() -> Steps:
        for _ in range(config.epochs):
            for images, labels in batches:
                with ak.backend("reference"):  # the model's BatchNorm and ReLU too are PyTorch's own
                    loop.step(images.to(config.device, non_blocking=True), labels.to(config.device, non_blocking=True))
                yield loop.sums[0]

    return Training(model, steps())


def dtype(variant: Variant) -> torch.dtype:
    """Of a variant's matrix products and convolutions."""
    return Precision(name=variant.precision).dtype
