"""From settings to the state that the first update reads."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

import advkernels as ak
from freefast import models
from freefast.config import TrainConfig
from freefast.data import ImageData, Loader, load
from freefast.data.device import DeviceBatches, fits
from freefast.data.staged import StagedBatches
from freefast.errors import UserError
from freefast.precision import Precision, PrecisionName
from freefast.threat import ThreatModel
from freefast.training import schedules
from freefast.training.captured import Batches, Step
from freefast.training.fast import fast_step
from freefast.training.free import free_step
from freefast.training.pgd import pgd_step
from freefast.training.standard import standard_step
from freefast.training.state import TrainState


def make_step(config: TrainConfig) -> Step:
    """The method's step function, its settings filled in."""
    match config.method:
        case "free":
            return partial(free_step, replays=config.replays)
        case "fast":
            return partial(
                fast_step, alpha=config.alpha, delta_init=config.delta_init,
                noise_magnitude=config.noise_magnitude, clip=config.clip, grad_align=config.grad_align,
            )  # fmt: skip
        case "pgd":
            return partial(pgd_step, alpha=config.alpha, steps=config.pgd_steps)
    return standard_step


def make_data(config: TrainConfig) -> ImageData:
    """The data set, limited as the settings say."""
    return load(
        config.dataset,
        root=config.data_root,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        image_size=config.image_size,
        seed=config.seed,
    )


def make_batches(config: TrainConfig, data: ImageData, device: torch.device, rows: Tensor | None = None) -> Batches:
    """Shuffled training batches on the device; from the host where processes prepare them or the split is too large.

    rows: (n,) int64, places of the training samples; None for all
    """
    loader = Loader(
        data.train,
        mean=data.mean,
        std=data.std,
        batch_size=config.batch_size,
        shuffle=True,
        augment=config.augment,
        seed=config.seed,
        num_workers=config.workers,
        pin=device.type == "cuda",
        rows=rows,
    )
    if config.workers == 0 and fits(data.train, device):
        return DeviceBatches(loader, device)
    return StagedBatches(loader, device)


def make_model(config: TrainConfig, data: ImageData) -> nn.Module:
    """The model in channels-last memory format, on the CPU."""
    model = models.build(config.model, len(data.classes), data.channels, **config.model_options)
    return model.to(memory_format=torch.channels_last)


def make_precision(config: TrainConfig) -> Precision:
    """How the run's model computes."""
    assert config.precision != "report"  # the config holds what it stands for
    masters = config.master_weights is not False
    return Precision(name=config.precision, master_weights=masters, loss_scale=config.loss_scale)


def evaluation_precision(config: TrainConfig) -> Precision:
    """How the run's model computes in evaluations."""
    return Precision(name=cast(PrecisionName, config.evaluate_in))


def make_threat(config: TrainConfig, data: ImageData) -> ThreatModel:
    """The ball and the data set's normalisation."""
    return ThreatModel(epsilon=config.epsilon, mean=data.mean, std=data.std)


def make_state(config: TrainConfig, data: ImageData, updates: int, device: torch.device) -> TrainState:
    """Model, optimiser, schedule and noise before the first update.

    updates: in the whole run
    """
    precision = make_precision(config)
    model = make_model(config, data)
    for policy in (precision, evaluation_precision(config)):
        policy.require(model, device, torch.zeros(2, data.channels, *data.image_size, device=device))
    model = precision.prepare(model).to(device).train()
    optimizer = ak.MasterSGD(
        model.parameters(), config.lr_max,
        momentum=config.momentum, weight_decay=config.weight_decay, master_weights=precision.master_weights,
    )  # fmt: skip
    batch = torch.zeros(config.batch_size, data.channels, *data.image_size, device=device)
    options = {} if config.peak is None else {"peak": config.peak}
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=schedules.build(config.schedule, optimizer, updates, **options),
        threat=make_threat(config, data),
        precision=precision,
        rng=ak.PhiloxState(config.seed, device),
        delta=batch.contiguous(memory_format=torch.channels_last),
        label_smoothing=config.label_smoothing,
        weight_average=config.weight_average,
        compiled=cast(nn.Module, torch.compile(model, dynamic=False)) if config.compile else None,
    )


def image_size(config: TrainConfig, data: ImageData, epoch: int) -> tuple[int, int]:
    """(H, W) of the images that an epoch, counted from 1, trains on; 0 is before the first.

    Raises: UserError where images were to be shrunk to a size that is no smaller than their own.
    """
    height, width = data.image_size
    if config.resize_from is None:
        return height, width
    if config.resize_from >= height:
        raise UserError(f"resize_from: wanted less than the images' {height} pixels, got {config.resize_from}")
    if epoch > config.resize_epochs:
        return height, width
    return config.resize_from, max(round(width * config.resize_from / height), 1)


def pick_device(name: str) -> torch.device:
    """The device of a name, or for "auto" a GPU where there is one.

    Raises: UserError where the name means nothing or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: wanted auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: wanted auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name} is not there, {torch.cuda.device_count()} CUDA devices are")
    return device


@contextmanager
def runtime(backend: str, threads: int | None, seed: int, device: torch.device) -> Iterator[None]:
    """Backend, threads and PyTorch's seed, and cuDNN deterministic, while inside.

    Raises: advkernels.BackendUnavailable where the backend cannot run on the device.
    """
    devices = [device] if device.type == "cuda" else []
    chosen = nullcontext() if backend == "auto" else ak.backend(backend)
    with chosen, torch.random.fork_rng(devices), _process_settings(threads):
        ak.uniform_init(torch.zeros(1, device=device), 0.0, rng=ak.PhiloxState(device=device))  # raises early
        torch.manual_seed(seed)
        yield


@contextmanager
def _process_settings(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with cudnn(search=False):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def cudnn(*, search: bool) -> Iterator[None]:
    """cuDNN deterministic, or searching for the fastest algorithms, while inside."""
    settings = torch.backends.cudnn
    before = settings.deterministic, settings.benchmark
    settings.deterministic, settings.benchmark = not search, search
    try:
        yield
    finally:
        settings.deterministic, settings.benchmark = before
