"""A training state, taken out and put back."""

from typing import Any

import torch

from freefast.training.state import TrainState


def capture(state: TrainState, epoch: int) -> dict[str, Any]:
    """All that the updates after this epoch depend on."""
    return {
        "epoch": epoch,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "delta": state.delta,
        "rng": state.rng.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(state.delta.device) if state.delta.is_cuda else None,
    }


def restore(state: TrainState, content: dict[str, Any]) -> int:
    """Put `capture`'s content into a fresh state of the same settings. Returns: the epoch."""
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scheduler.load_state_dict(content["scheduler"])
    state.delta.copy_(content["delta"])
    state.rng.load_state_dict(content["rng"])
    torch.set_rng_state(content["torch_rng"].cpu())
    if content["cuda_rng"] is not None and state.delta.is_cuda:
        torch.cuda.set_rng_state(content["cuda_rng"].cpu(), state.delta.device)
    return content["epoch"]
