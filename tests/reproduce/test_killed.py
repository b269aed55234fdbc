"""A reproduction that is killed again and again ends with the numbers of one that is not."""

import multiprocessing
import random
from pathlib import Path

import pytest
import small

KILLS = 6
PATIENCE = 300.0  # seconds
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["freefast.arguments", "sklearn.datasets", "sklearn.model_selection", "small"])


def end_of(out: Path, last: int = 0, delay: float = 0.0) -> tuple[int | None, int]:
    """Run in a process of its own. Returns: its exit code, and how often it changed files."""
    changes = FORKS.Value("l", 0)
    process = FORKS.Process(target=small.killed, args=(str(out), changes, last, delay, "--only", "table-7.1"))
    process.start()
    process.join(PATIENCE)
    return process.exitcode, changes.value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of a reproduction that is not interrupted, and how often it changed files."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, changes = end_of(out)
    assert code == 0
    return out, changes


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    seed: int, whole: tuple[Path, int], tmp_path: Path
) -> None:
    """At most half of the work lies between two kills, so that there are two at least."""
    wanted, changes = whole
    moments, codes = random.Random(seed), []
    for _ in range(KILLS):
        last, delay = moments.randint(1, changes // 2), moments.choice([0.0, 0.001, 0.01, 0.1])
        codes.append(end_of(tmp_path / "out", last, delay)[0])
    assert codes.count(-9) >= 2
    assert set(codes) <= {0, -9}
    assert end_of(tmp_path / "out")[0] == 0
    assert small.numbers(tmp_path / "out") == small.numbers(wanted)
