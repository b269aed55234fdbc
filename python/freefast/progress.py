"""Progress bars on standard error, with rate and time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Call with the number of samples done since the last time, and what the bar says from now on."""

    def __call__(self, samples: int, description: str | None = None, /) -> None: ...


class RateColumn(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} samples/s")


@contextmanager
def bars() -> Iterator[Progress]:
    """A display for `track`, which appears with the first bar."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    try:
        yield progress
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def track(
    progress: Progress | None, description: str, samples: int, *, done: int = 0, leave: bool = True
) -> Iterator[Advance]:
    """A bar of so many samples while inside; yields what to call when samples are done.

    progress: where to show it, None for nowhere
    done: samples that were done before
    leave: keep the bar on the screen at the end
    """
    if progress is None:
        yield lambda samples, description=None: None
        return
    progress.start()
    task = progress.add_task(description, total=samples, completed=done)
    try:
        yield lambda samples, description=None: progress.update(task, advance=samples, description=description)
    finally:
        progress.stop_task(task)
        if not leave:
            progress.remove_task(task)
