"""The runs of a reproduction, one after the other: what is done is kept, what was begun is gone on with."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from rich.progress import Progress

from freefast.config import TrainConfig
from freefast.errors import StoppedError, UserError
from freefast.reproduce.evaluated import departures
from freefast.training.loop import train
from freefast.training.run_folder import RunFolder

State = Literal["waiting", "begun", "trained", "finished", "failed"]


class Queue:
    """Runs by name, the shortest first, so that a budget leaves as few as possible undone.

    minutes: after which no run and no epoch is begun
    samples: test images, which each run is evaluated on
    """

    def __init__(self, runs: Mapping[str, TrainConfig], minutes: float, samples: int) -> None:
        self.samples = samples
        self.runs = dict(sorted(runs.items(), key=lambda item: _passes(item[1])))
        self.states: dict[str, State] = {}
        """Of every run, now."""
        self.failures: dict[str, str] = {}
        """Why a run failed, or cannot be gone on with."""
        for name, run in self.runs.items():
            try:
                self.states[name] = self._state(run)
            except UserError as error:
                self._fail(name, f"{error}; delete {run.out} to begin it anew")
        self._deadline = time.monotonic() + 60 * minutes

    @property
    def left(self) -> list[str]:
        """Names of the runs that are not finished."""
        return [name for name, now in self.states.items() if now != "finished"]

    def work(self, progress: Progress | None = None) -> None:
        """Run all that is left, until the budget is spent; a run that fails does not keep the others from theirs."""
        with _view(progress, self.states) as show:
            for name in [name for name in self.left if name not in self.failures]:
                if self._is_spent():
                    break
                show(name, "running")
                self._run(name, progress)
                show(name, self.states[name])

    def _run(self, name: str, progress: Progress | None) -> None:
        run = self.runs[name]
        try:
            self._tell(name)
            train(run, resume=self.states[name] != "waiting", progress=progress, stop=self._is_spent)
            self.states[name] = "finished"
        except StoppedError:
            self.states[name] = self._state(run)
        except torch.OutOfMemoryError as error:
            self._fail(name, str(error).splitlines()[0])
        except UserError as error:
            self._fail(name, str(error))

    def _state(self, run: TrainConfig) -> State:
        """A run that was evaluated by other settings than its own is trained and no more."""
        state = RunFolder(run.out).state(run)
        if state == "finished" and departures(run, self.samples):
            return "trained"
        return "waiting" if state == "new" else state

    def _tell(self, name: str) -> None:
        """Say why a run that has all its files is evaluated again."""
        run = self.runs[name]
        if RunFolder(run.out).state(run) == "finished":
            found = ", ".join(departures(run, self.samples))
            warnings.warn(f"{name}: evaluated again by its own settings: its results have {found}", stacklevel=4)

    def _fail(self, name: str, reason: str) -> None:
        self.states[name] = "failed"
        self.failures[name] = reason

    def _is_spent(self) -> bool:
        return time.monotonic() >= self._deadline


def _passes(run: TrainConfig) -> int:
    """Backward passes over the training data."""
    return run.epochs * (run.replays if run.method == "free" else 2)


@contextmanager
def _view(progress: Progress | None, states: Mapping[str, str]) -> Iterator[Callable[[str, str], None]]:
    """A line a run above the bars of the one that runs; yields what to call when a run's state is another."""
    if progress is None:
        yield lambda name, now: None
        return
    progress.start()
    lines = {name: progress.add_task("", total=1, start=False) for name in states}

    def show(name: str, now: str) -> None:
        progress.update(lines[name], description=f"{name}: {now}", completed=int(now == "finished"))
        for task in progress.task_ids:
            if task not in lines.values():
                progress.remove_task(task)

    for name, now in states.items():
        show(name, now)
    yield show
