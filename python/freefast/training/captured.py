"""A training step with no host in the loop: one CUDA graph, or the same code op by op."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from freefast.settings import GraphMode
from freefast.training.state import TrainState

_WARM_UP = 3
"""Full batches before the capture: they make what is made once, optimizer state, loss scale, cuDNN's plans."""


class Batches(Protocol):
    """Where a step's images come from: `DeviceBatches` or `StagedBatches`."""

    def __len__(self) -> int:
        """Batches an epoch."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `read` reads and writes, at addresses that stay."""

    def epoch(self, epoch: int) -> Iterator[int]:
        """The size of each batch of an epoch, when it is to be read."""

    def read(self, count: int) -> tuple[Tensor, Tensor]:
        """The next batch, by the device's work alone."""


class Step(Protocol):
    """One batch's updates."""

    def __call__(self, state: TrainState, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns: mean loss; logits (N, classes)."""


class GraphWarning(UserWarning):
    """A CUDA graph was wanted, and the steps run op by op."""


class CapturedStep:
    """The whole of a step on the next batch: reading and resizing it, the method's updates, sums of loss and hits.

    With graphs the first full batches run op by op on a side stream, then the step is captured and every further full
    batch is one launch; a smaller batch runs op by op. All of them are updates of the run, and all are the same code.
    A graph reads and writes its tensors where they were when it was captured. Where one has moved since, by the
    optimizer's `load_state_dict` for one, or images have another size, `begin_epoch` drops the graph and the next
    batches make another.

    state: updated in place
    batch_size: of a full batch
    graph: "auto" captures on CUDA; "off" never does; "on" warns where there is no CUDA

    Warns: GraphWarning where the device refuses the capture; what follows runs op by op.
    """

    def __init__(
        self, state: TrainState, step: Step, batches: Batches, batch_size: int, graph: GraphMode = "auto"
    ) -> None:
        self._state, self._step, self._batches, self._batch_size = state, step, batches, batch_size
        device = state.delta.device
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        """Of the samples since `begin_epoch`: loss, and how many were classified right."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" and graph != "off" else None
        if graph == "on" and self._stream is None:
            _warn(f"CUDA graphs are for CUDA devices, this run is on {device}")
        self._warm = 0
        self._shape = state.delta.shape
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured: list[tuple[Tensor, int]] = []

    @property
    def is_captured(self) -> bool:
        """Whether the next full batch is one launch."""
        return self._graph is not None

    @property
    def tensors(self) -> list[Tensor]:
        """All that outlives a step and that a step reads or writes."""
        return [self.sums, *self._batches.tensors, *self._state.tensors]

    def begin_epoch(self) -> None:
        """Sum from 0, and see whether the graph still holds."""
        self.sums.zero_()
        shape = self._state.delta.shape
        if shape != self._shape or (self._graph is not None and not self._unmoved()):
            self._graph, self._warm, self._shape = None, 0, shape
            self._captured.clear()

    def __call__(self, count: int) -> None:
        """Train on the next batch, of so many samples."""
        is_full = count >= self._batch_size
        if is_full and self._stream is not None and self._graph is None and self._warm == _WARM_UP:
            self._capture(self._stream)
        if not is_full or self._stream is None:
            self._run(count)
        elif self._graph is not None:
            self._graph.replay()
        else:
            self._warm += 1
            with _on(self._stream):
                self._run(count)

    def _run(self, count: int) -> None:
        images, labels = self._batches.read(count)
        loss, logits = self._step(self._state, self._state.fit(images), labels)
        self.sums += torch.stack([loss * count, (logits.argmax(1) == labels).sum()])

    def _capture(self, stream: torch.cuda.Stream) -> None:
        """Record the step, which changes nothing; on a refusal no further one is tried."""
        graph = torch.cuda.CUDAGraph()
        self._captured = [(tensor, tensor.data_ptr()) for tensor in self.tensors]
        try:
            # Other threads may go on with copies to page-locked memory.
            with _on(stream), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._run(self._batch_size)
            self._graph = graph
        except RuntimeError as error:
            self._stream = None
            self._captured.clear()
            torch.cuda.synchronize(stream.device)
            _warn(f"the capture was refused: {(str(error) or type(error).__name__).splitlines()[0]}")

    def _unmoved(self) -> bool:
        now = self.tensors
        return len(now) == len(self._captured) and all(
            tensor is before and tensor.data_ptr() == address
            for tensor, (before, address) in zip(now, self._captured, strict=True)
        )


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """On a stream, behind the current one's work and before what it does next."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def _warn(reason: str) -> None:
    warnings.warn(f"graph: {reason}: steps run op by op", GraphWarning, stacklevel=3)
