"""The runs of a reproduction, one after the other: what is done is kept, what was begun is gone on with."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from rich.progress import Progress

from freefast.config import TrainConfig
from freefast.errors import StoppedError, UserError
from freefast.training.loop import train
from freefast.training.run_folder import RunFolder

State = Literal["waiting", "begun", "trained", "finished", "failed"]


class Queue:
    """Runs by name, the shortest first, so that a budget leaves as few as possible undone.

    minutes: after which no run and no epoch is begun
    """

    def __init__(self, runs: Mapping[str, TrainConfig], minutes: float) -> None:
        self.runs = dict(sorted(runs.items(), key=lambda item: _passes(item[1])))
        self.states: dict[str, State] = {}
        """Of every run, now."""
        self.failures: dict[str, str] = {}
        """Why a run failed, or cannot be gone on with."""
        for name, run in self.runs.items():
            try:
                self.states[name] = _state(run)
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
            train(run, resume=self.states[name] != "waiting", progress=progress, stop=self._is_spent)
            self.states[name] = "finished"
        except StoppedError:
            self.states[name] = _state(run)
        except torch.OutOfMemoryError as error:
            self._fail(name, str(error).splitlines()[0])
        except UserError as error:
            self._fail(name, str(error))

    def _fail(self, name: str, reason: str) -> None:
        self.states[name] = "failed"
        self.failures[name] = reason

    def _is_spent(self) -> bool:
        return time.monotonic() >= self._deadline


def _state(run: TrainConfig) -> State:
    state = RunFolder(run.out).state(run)
    return "waiting" if state == "new" else state


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
