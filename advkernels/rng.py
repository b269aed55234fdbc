"""The state of the random numbers: a seed and a draw counter in one device tensor."""

from numbers import Integral
from typing import Any

import torch

_INT64_MAX = 2**63 - 1
_MAX_DRAWS = 2**48


class PhiloxState:
    """Seed and draw counter of the Philox4x32-10 numbers that `uniform_init` and `augment` draw.

    Every draw reads (seed, draw) on the device. A random start advances draw there, so that a captured CUDA graph
    draws fresh numbers at every replay; `augment` does not, its draw being the epoch. A number depends on (seed, draw,
    logical element index or sample) alone. Draws from one state must follow each other: two CUDA streams that draw at
    the same time lose its counter.

    seed: int in [0, 2**63)
    device: where the int64 tensor of shape (2,), (seed, draw), lives

    Raises: TypeError or ValueError where seed is no int or out of range.
    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu") -> None:
        if not isinstance(seed, Integral):
            raise TypeError(f"PhiloxState: seed: wanted an int, got {type(seed).__name__}")
        if not 0 <= seed <= _INT64_MAX:
            raise ValueError(f"PhiloxState: seed: wanted an int in [0, 2**63), got {seed}")
        self.tensor: torch.Tensor = torch.tensor([int(seed), 0], dtype=torch.int64, device=device)

    @property
    def seed(self) -> int:
        """The seed, read back from the device."""
        return int(self.tensor[0])

    @property
    def draw(self) -> int:
        """How many draws were made, read back from the device."""
        return int(self.tensor[1])

    def seek(self, draw: int) -> None:
        """Go to a draw, 0 being the first, without waiting for the device.

        draw: int in [0, 2**48)

        Raises: TypeError or ValueError where draw is no int or out of range.
        """
        if not isinstance(draw, Integral):
            raise TypeError(f"PhiloxState: draw: wanted an int, got {type(draw).__name__}")
        if not 0 <= draw < _MAX_DRAWS:
            raise ValueError(f"PhiloxState: draw: wanted an int in [0, 2**48), got {draw}")
        self.tensor[1] = int(draw)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, for a checkpoint."""
        return {"tensor": self.tensor.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state in place: a captured graph goes on with it.

        Raises: ValueError where it is not a seed in [0, 2**63) and a draw counter below 2**48, as CUDA's counters are.
        """
        tensor = state.get("tensor")
        if not isinstance(tensor, torch.Tensor) or tensor.shape != (2,) or tensor.dtype != torch.int64:
            raise ValueError(f"PhiloxState: state: wanted an int64 tensor (2,) by the name 'tensor', got {state}")
        seed, draw = tensor.tolist()
        if seed < 0:
            raise ValueError(f"PhiloxState: state: wanted a seed in [0, 2**63), got {seed}")
        if not 0 <= draw < _MAX_DRAWS:
            raise ValueError(f"PhiloxState: state: wanted a draw counter in [0, 2**48), got {draw}")
        self.tensor.copy_(state["tensor"])

    def __repr__(self) -> str:
        return f"PhiloxState(seed={self.seed}, draw={self.draw}, device={str(self.tensor.device)!r})"
