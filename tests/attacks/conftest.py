"""One thread for the tiny models, one convolution algorithm for both sides of a comparison."""

import pytest


@pytest.fixture(autouse=True)
def steady(one_thread: None, deterministic_cudnn: None) -> None:
    """Every test of this folder."""
