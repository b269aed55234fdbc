"""One thread for the tiny models, one convolution algorithm for both sides of a comparison."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def steady(one_thread: None, deterministic_cudnn: None) -> None:
    """Every test of this folder."""


@pytest.fixture(scope="module")
def one_thread_for_all() -> Iterator[None]:
    """For what a file's fixtures do before its first test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
