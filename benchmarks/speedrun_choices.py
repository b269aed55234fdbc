"""What each choice of a speedrun's recipe does: the recipe as it is, and with one setting changed at a time.

    python benchmarks/speedrun_choices.py RESULT.json [--recipe NAME_OR_PATH] [--seeds N ...] [--only NAME ...]
        [--set "FIELD = VALUE" ...] [--work FOLDER]

Every variant is a `freefast speedrun` over the seeds, timed as there. The result has seconds and accuracies of each
seed, their means, spreads and differences to the base's means. --set gives settings to the base and so to all, in TOML,
for smaller runs: --set "width = 8" "limit_train = 500" 'epsilon = "8/255"'. Runs are kept in FOLDER, and those that
are finished are not repeated: a long comparison can be made in several calls, and the result file is written after
every variant.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import freefast as ff
from freefast import recipes
from freefast.progress import bars
from freefast.recipes import tomllib
from freefast.reporting import environment
from freefast.speedrun import Speedrun, speedrun

Changes = dict[str, Any]


def variants(base: ff.TrainConfig, height: int) -> dict[str, Changes]:
    """One changed setting each, by names; height: of the images, pixels."""
    choices: dict[str, Changes] = {"base": {}}
    for factor in (2 / 3, 4 / 5, 4 / 3):
        epochs = max(round(base.epochs * factor), 1)
        choices[f"epochs {epochs}"] = {"epochs": epochs}
    for factor in (2, 4):
        choices[f"batch size {base.batch_size * factor}"] = {"batch_size": base.batch_size * factor}
    for factor in (0.5, 1.5, 2):
        choices[f"peak learning rate {base.lr_max * factor:g}"] = {"lr_max": base.lr_max * factor}
    for peak in (0.2, 0.35):
        choices[f"peak at {peak}"] = {"peak": peak}
    for smoothing in (0.1, 0.2):
        choices[f"label smoothing {smoothing}"] = {"label_smoothing": smoothing}
    for decay in (0.98, 0.995):
        choices[f"weight average {decay}"] = {"weight_average": decay}
    side, epochs = height * 3 // 4, max(base.epochs // 3, 1)
    choices[f"{side} pixels for {epochs} epochs"] = {"resize_from": side, "resize_epochs": epochs}
    choices["compile"] = {"compile": True}
    choices["cudnn search"] = {"cudnn_search": True}
    return choices


def row(name: str, changes: Changes, outcome: Speedrun, base: Speedrun | None) -> Changes:
    """A variant's part of the result."""
    runs = [{name: run[name] for name in ("seed", *outcome.mean)} for run in outcome.rows]
    found = {"variant": name, "changes": changes, "runs": runs, "mean": outcome.mean, "spread": outcome.spread}
    if base is None:
        return found
    return found | {"difference": {key: value - base.mean[key] for key, value in outcome.mean.items()}}


def table(rows: list[Changes]) -> str:
    """One line a variant: means, and behind each its difference to the base."""
    lines = [" ".join([f"{'variant':26}", *(f"{name:>18}" for name in rows[0]["mean"])])]
    for found in rows:
        cells = []
        for name, value in found["mean"].items():
            difference = found.get("difference", {}).get(name)
            cells.append(f"{value:9.3f} {'' if difference is None else f'{difference:+.3f}':>8}")
        lines.append(" ".join([f"{found['variant']:26}", *cells]))
    return "\n".join(lines)


def main() -> int:
    """Run all variants, the base first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--recipe", default="speedrun")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="variants beside the base")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/speedrun_choices"))
    options = parser.parse_args()
    given = tomllib.loads("\n".join(options.set))
    base = ff.TrainConfig(**recipes.checked({**recipes.read(options.recipe), **given, "out": str(options.work)}))
    choices = variants(base, height=base.image_size or 32)
    unknown = set(options.only) - set(choices)
    if unknown:
        parser.error(f"--only: wanted some of {', '.join(choices)}, got {', '.join(sorted(unknown))}")
    rows: list[Changes] = []
    first: Speedrun | None = None
    for name, changes in choices.items():
        if options.only and name not in ("base", *options.only):
            continue
        config = dataclasses.replace(base, **changes, out=options.work / name.replace(" ", "-"))
        with bars() as progress:
            outcome = speedrun(config, options.seeds, resume=True, progress=progress)
        rows.append(row(name, changes, outcome, first))
        first = first or outcome
        facts = environment.describe(base.device if base.device != "auto" else None)
        content = {"base": base.as_json(), "seeds": options.seeds, "variants": rows, "environment": facts}
        options.result.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(table(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
