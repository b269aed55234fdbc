"""All variants, one after the other, and the files that say what they took."""

import dataclasses
import gc
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from freefast import reporting
from freefast.bench import images, limits, roofline, training
from freefast.bench.config import BenchConfig
from freefast.bench.measure import measure, needed
from freefast.bench.variants import Variant, chosen, variants
from freefast.bench.work import Work, count_step
from freefast.data import ImageData
from freefast.errors import UserError
from freefast.training import setup

_SECONDS = {False: 6.0, True: 45.0}
"""What a variant may cost, without and with torch.compile."""
_EPOCHS = 100
"""So many at least that the learning rate, which rises over half of them, stays near 0 while steps are timed."""
_LEFT_OUT = "left out: the budget of seconds would not last"

Row = dict[str, Any]


def bench(config: BenchConfig, show: Callable[[Row], object] = lambda row: None) -> list[Row]:
    """Time the variants; write `results.json`, `roofline.png` and `roofline.svg` into `config.out`.

    show: called with each row when it is there

    Returns: rows, as `measure` and `_compared` make them; `error` says why one has no figures
    Raises: UserError where no variant is chosen, or data, model or folder are not as the settings say; OSError where
        the folder cannot be written.
    """
    device = torch.device(config.device)
    found = chosen(variants(config.methods, config.precisions or (), device.type), config.only, config.skip)
    if not found:
        raise UserError("only, skip: no variant is left")
    _require_own(config.out)
    data, epoch = images.load(config)
    setup.make_model(config.train_config(found[0], epochs=1), data)  # what cannot be is refused before the work
    config.out.mkdir(parents=True, exist_ok=True)
    environment = reporting.environment.describe(device)
    reporting.results.write(config.out, [], environment)  # and a folder that cannot be written
    session = _Session(config, data, epoch, device)
    rows: list[Row] = []
    for variant in found:
        rows = _compared([*rows, session.attempt(variant)])
        reporting.results.write(config.out, rows, environment)  # what an interrupt leaves
        show(rows[-1])
    roofline.plot(rows, config.out)
    return rows


def _require_own(folder: Path) -> None:
    """Raises: UserError where the folder holds results of something else."""
    results = folder / "results.json"
    if (folder / "config.json").exists() or (results.exists() and not _is_own(results)):
        raise UserError(f"out: {folder} holds results of something else, wanted another folder")


def _is_own(results: Path) -> bool:
    """Whether a benchmark wrote the file, be it one that was interrupted before its first row."""
    try:
        return all("variant" in row for row in json.loads(results.read_text(encoding="utf-8"))["rows"])
    except (ValueError, KeyError, TypeError):
        return False


class _Session:
    """What the rows of one process share."""

    def __init__(self, config: BenchConfig, data: ImageData, epoch: int, device: torch.device) -> None:
        self.config, self.data, self.epoch, self.device = config, data, epoch, device
        self.deadline = time.perf_counter() + config.budget
        self.bytes_per_second = limits.memory(device)
        self.limit = cache(lambda dtype: limits.arithmetic(device, dtype))
        self.work = cache(self._count)

    def attempt(self, variant: Variant) -> Row:
        """A row, or why it lacks figures."""
        start = time.perf_counter()
        row: Row = {"variant": variant.name, "method": variant.method, "who": variant.who}
        row |= {"precision": variant.precision, "how": variant.how}
        if start + _SECONDS[variant.compile] > self.deadline:
            return row | {"error": _LEFT_OUT}
        try:
            row |= self._measured(variant)
        except Exception as error:  # of one variant: the others go on
            reason = str(error).strip() or " "
            row["error"] = f"{type(error).__name__}: {reason.splitlines()[0]}"
        gc.collect()
        return row | {"seconds": round(time.perf_counter() - start, 1)}

    def _measured(self, variant: Variant) -> Row:
        standing = variant.method in ("standard", "fast")
        count = self.config.steps if standing else max(self.config.steps // 6, 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        with training.runtime(variant, self.device):
            steps = self._training(variant, self.data, needed(count, self.device)).steps
            row = measure(steps, count, self.device, self.deadline - time.perf_counter())
            steps.close()
        del steps
        return row | self._against_limits(variant, row["step_ms"] / 1e3)

    def _training(self, variant: Variant, data: ImageData, steps: int) -> training.Training:
        epochs = max(_EPOCHS, -(-steps // (len(data.train) // self.config.batch_size)))
        return training.make(variant, self.config.train_config(variant, epochs), data)

    def _against_limits(self, variant: Variant, seconds: float) -> Row:
        """Work, rates and limits; flops are those that the method needs, whatever else the variant computes."""
        own = self.work(dataclasses.replace(variant, graph="off", compile=False, search=False))
        flops = self.work(Variant(method=variant.method, who="ours")).flops
        limit = self.limit(training.dtype(variant))
        return {
            "epoch_s": seconds * self.epoch / self.config.batch_size,
            "flops": flops,
            "flops_computed": own.flops,
            "bytes_moved": own.moved,
            "flops_per_second": flops / seconds,
            "flops_per_byte": flops / own.moved,
            "share": flops / seconds / limit.flops,
            "limit_flops_per_second": limit.flops,
            "limit_source": limit.source,
            "limit_bytes_per_second": self.bytes_per_second,
        }

    def _count(self, variant: Variant) -> Work:
        few = dataclasses.replace(self.data, train=self.data.train.take(self.config.batch_size, seed=0))
        with training.runtime(variant, self.device):
            return count_step(self._training(variant, few, 2).steps)


def _compared(rows: list[Row]) -> list[Row]:
    """With `times`: how many steps fit into one of the plain loop, op by op, of the same method."""
    plain = {row["method"]: row.get("step_ms") for row in rows if (row["who"], row["how"]) == ("plain", "eager")}
    return [row | {"times": _ratio(plain.get(row["method"]), row)} for row in rows]


def _ratio(plain: float | None, row: Mapping[str, Any]) -> float | None:
    return plain / row["step_ms"] if plain is not None and "step_ms" in row else None
