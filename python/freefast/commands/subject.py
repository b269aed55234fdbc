"""What is evaluated: a run, the weights of a file, or a model that a function makes."""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from freefast import data, models
from freefast.config import TrainConfig
from freefast.data import ImageData
from freefast.errors import UserError
from freefast.precision import Precision
from freefast.training import setup
from freefast.training.results import with_weights
from freefast.training.run_folder import RunFolder, read_safetensors

_STATES = ("model", "state_dict", "model_state_dict")
"""Where a checkpoint may keep the model's weights."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model with the data to try it on, and what is natural for its evaluation."""

    model: nn.Module
    """On the CPU, its weights as they are stored."""

    data: ImageData
    """Its test split is evaluated."""

    normalized: bool
    """Whether the model takes (pixels - mean) / std, else pixels."""

    precision: Precision
    """How it computes."""

    epsilon: float
    """Radius, pixel units."""

    steps: tuple[int, ...] = (10, 20, 50)
    """PGD steps."""

    restarts: int = 1
    """Random starts."""

    seed: int = 0
    """Of the random starts."""

    backend: str = "auto"
    """Implementation of the fused operations."""

    threads: int | None = None
    """CPU threads; None leaves torch's number."""

    row: Mapping[str, Any] = field(default_factory=dict)
    """What a table says of it."""


def of_run(source: RunFolder | Path, config: TrainConfig, changes: Mapping[str, Any]) -> Subject:
    """A run's model, with the run's weights or with those of another file.

    source: the run, or the file
    changes: other data than the run's, normalised as the run's are

    Raises: UserError where the weights are missing or not this model's.
    """
    images = setup.make_data(dataclasses.replace(config, **changes))
    mean, std = data.normalization(config.dataset, images.channels)
    images = dataclasses.replace(images, mean=mean, std=std)
    weights = source.load_weights() if isinstance(source, RunFolder) else read_weights(source)
    file = source.path / "model.safetensors" if isinstance(source, RunFolder) else source
    return Subject(
        model=with_weights(setup.make_model(config, images), weights, f"{file}: does not fit {config.model}"),
        data=images,
        normalized=True,
        precision=setup.evaluation_precision(config),
        epsilon=config.epsilon,
        steps=config.eval_steps,
        restarts=config.restarts,
        seed=config.seed,
        backend=config.backend,
        threads=config.threads,
        row={
            "method": config.method, "model": config.model, "dataset": images.name, "setting": config.setting,
            "precision": config.precision, "master_weights": config.master_weights, "loss_scale": config.loss_scale,
        },
    )  # fmt: skip


def of_file(path: Path, model: str, options: Mapping[str, int], images: ImageData) -> Subject:
    """A file's weights in a model by its name.

    options: the model's own

    Raises: UserError where the file is broken, or its weights are not this model's.
    """
    built = models.build(model, len(images.classes), images.channels, **options)
    loaded = with_weights(built, read_weights(path), f"{path}: does not fit {model} for {images.name}")
    return _of_model(loaded, images, path.name, model, normalized=True)


def of_function(name: str, images: ImageData) -> Subject:
    """The model that `module:function` returns, or is; modules are looked for in the working directory too.

    Raises: UserError where there is none.
    """
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        model = found if isinstance(found, nn.Module) or not callable(found) else found()
    except Exception as error:  # the code of others may raise anything
        raise UserError(f"{name}: {str(error) or type(error).__name__}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: wanted a torch.nn.Module, or a function that returns one, got {type(model).__name__}")
    return _of_model(model, images, name, type(model).__name__, normalized=False)


def load_images(changes: Mapping[str, Any]) -> ImageData:
    """Images for a model that is of no run.

    changes: dataset, data_root, image_size, limit_test, those that were given
    """
    options = dict(changes)
    root = options.pop("data_root", None)
    return data.load(options.pop("dataset", "digits"), root=root, **options)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or from what torch.save wrote: the dict, or a checkpoint that holds it.

    Raises: UserError where the file holds none.
    """
    content = read_safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    for name in _STATES:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no weights: wanted a state dict, or one by the name {', '.join(_STATES)}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}  # DataParallel's prefix


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(f"{path}: not a file of weights that torch.load reads with weights_only=True") from error


def _of_model(model: nn.Module, images: ImageData, name: str, kind: str, normalized: bool) -> Subject:
    return Subject(
        model=model,
        data=images,
        normalized=normalized,
        precision=Precision.of(model),
        epsilon=0.2 if images.name == "digits" else 8 / 255,
        row={"method": name, "model": kind, "dataset": images.name, "precision": Precision.of(model).name},
    )
