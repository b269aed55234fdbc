"""A training state, taken out and put back."""

from pathlib import Path
from typing import Any

import torch

from freefast.errors import UserError
from freefast.training.state import TrainState


def capture(state: TrainState, epoch: int) -> dict[str, Any]:
    """All that the updates after this epoch depend on."""
    return {
        "epoch": epoch,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "scaler": state.scaler.state_dict(),
        "delta": state.delta,
        "average": None if state.average is None else state.average.state_dict(),
        "rng": state.rng.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(state.delta.device) if state.delta.is_cuda else None,
    }


def restore(state: TrainState, content: dict[str, Any], path: Path) -> int:
    """Put `capture`'s content into a fresh state of the same settings. Returns: the epoch.

    path: the file that the content comes from

    Raises: UserError where it is not of these settings.
    """
    try:
        _restore(state, content)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: does not fit the run's settings: {reason}") from error
    return content["epoch"]


def _restore(state: TrainState, content: dict[str, Any]) -> None:
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scheduler.load_state_dict(content["scheduler"])
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(content["scaler"])
    if content["delta"].shape != state.delta.shape:
        wanted, got = tuple(state.delta.shape), tuple(content["delta"].shape)
        raise ValueError(f"delta: wanted shape {wanted}, got {got}")
    state.delta.copy_(content["delta"])
    if state.average is not None:
        state.average.load_state_dict(content["average"])
    state.rng.load_state_dict(content["rng"])
    torch.set_rng_state(content["torch_rng"].cpu())
    if content["cuda_rng"] is not None and state.delta.is_cuda:
        torch.cuda.set_rng_state(content["cuda_rng"].cpu(), state.delta.device)
