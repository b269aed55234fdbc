"""One thread for the tiny models, one convolution for both loops."""

import pytest
import torch


@pytest.fixture(autouse=True)
def steady(one_thread: None, deterministic_cudnn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cuDNN, whose choice of algorithm hangs on more than the shapes."""
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
