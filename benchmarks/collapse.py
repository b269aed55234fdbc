"""Catastrophic overfitting of Fast on the CPU: whether the guard sees it, keeps the good weights, and cures prevent it.

    python benchmarks/collapse.py DATA_ROOT [--seeds N ...] [--methods NAME ...] [--work FOLDER]

DATA_ROOT: CIFAR-10 as images, train/ and test/ of class folders.

Fast, from a random start with a step of two epsilon and from a zero start with one, and its cures train the same narrow
network on the same few images of three classes, in a ball so large that Fast collapses. After every epoch the guard
attacks the held-out training samples, and `ff.evaluate` test images that no run sees. The result says for every run at
which epoch either fell, and what the last and the kept weights withstand.
Finished runs in FOLDER are not repeated.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from comparison import write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import freefast as ff
from freefast.progress import bars
from freefast.reporting import Run
from freefast.reporting.curves import MARKERS, PALETTE, epoch_ticks
from freefast.reporting.drawing import save
from freefast.training import setup
from freefast.training.run_folder import RunFolder

CLASSES = ("airplane", "automobile", "frog")
EPSILON = 22 / 255
METHODS: dict[str, dict[str, Any]] = {
    "Fast": {"alpha": 2 * EPSILON},
    "Fast, zero start": {"alpha": EPSILON, "delta_init": "zero"},
    "N-FGSM": {"noise_magnitude": 2.0, "clip": False},
    "GradAlign": {"alpha": EPSILON, "grad_align": 2.0},  # its paper's weight for 16/255, the largest ball there
}
DROP = 0.2


def config(method: str, seed: int, data_root: Path, work: Path) -> ff.TrainConfig:
    """One run; which weights it takes and what it does on a collapse are the defaults."""
    return ff.TrainConfig(
        method="fast", dataset="imagefolder", data_root=data_root, limit_train=1200, limit_test=300,
        guard_samples=200, model="preactresnet18", width=8, epsilon=EPSILON, epochs=20, batch_size=32, lr_max=0.1,
        peak=0.5, augment=False, threads=1, eval_every=1, eval_steps=(10,), seed=seed, device="cpu",
        out=work / f"{method}-{seed}", **METHODS[method],
    )  # fmt: skip


def classes_of(root: Path, folder: Path) -> Path:
    """The chosen classes of an image folder, as links."""
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in CLASSES:
            link = folder / part / name
            if not link.exists():
                link.symlink_to((root / part / name).resolve(), target_is_directory=True)
    return folder


def run(config: ff.TrainConfig) -> dict[str, Any]:
    """Train, or take the run that is there, and set the guard's words beside the test set's."""
    state = RunFolder(config.out).state(config)
    if state != "finished":
        with bars() as progress:
            ff.train(config, resume=state != "new", progress=progress)
    done = Run.load(config.out)
    guard = [entry["guard_pgd10"] for entry in done.metrics]
    test = [entry["pgd10"] for entry in done.metrics[:-1]] + [last_weights(config)]
    return {
        "guard_pgd10": guard,
        "test_pgd10": test,
        "test_natural": [entry["natural"] for entry in done.metrics[:-1]],
        "train_accuracy": [entry["train_accuracy"] for entry in done.metrics],
        "guard_collapsed_epochs": done.row["collapsed_epochs"],
        "test_first_fall": first_fall(test),
        "selected_epoch": done.row["selected_epoch"],
        "selected_test_pgd10": done.row["pgd10"],
        "last_test_pgd10": test[-1],
        "seconds": sum(entry["seconds"] for entry in done.metrics),
        "guard_seconds": done.row["guard_seconds"],
        "guard_samples": done.row["guard_samples"],
    }


def last_weights(config: ff.TrainConfig) -> float:
    """Accuracy under PGD-10 on the test images of the weights behind the last epoch."""
    data = setup.make_data(config)
    model = setup.make_model(config, data)
    model.load_state_dict(RunFolder(config.out).load_checkpoint(torch.device("cpu"))["model"])
    return ff.evaluate(model, data, setup.make_threat(config, data), steps=(10,), seed=config.seed).pgd[10]


def first_fall(accuracies: Sequence[float]) -> int | None:
    """The first epoch whose accuracy lies by more than the drop under the best before it."""
    falls = (epoch for epoch, now in enumerate(accuracies, 1) if max(accuracies[:epoch]) - now > DROP)
    return next(falls, None)


def claims(runs: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What the runs were made to show."""
    from_zero = [run for run in runs if run["method"] == "Fast, zero start"]
    cured = [run for run in runs if not run["method"].startswith("Fast")]
    collapsed = [run for run in runs if run["guard_collapsed_epochs"]]
    return {
        "Fast from a zero start collapses in every run": all(run["guard_collapsed_epochs"] for run in from_zero),
        "the guard and the test set fall at most one epoch apart": all(
            run["test_first_fall"] and abs(run["guard_collapsed_epochs"][0] - run["test_first_fall"]) <= 1
            for run in collapsed
        ),
        "where a run collapses, the kept weights withstand more than the last": all(
            run["selected_test_pgd10"] > run["last_test_pgd10"] + DROP / 2 for run in collapsed
        ),
        "no cure collapses": not any(run["guard_collapsed_epochs"] for run in cured),
    }


def figure(runs: Sequence[dict[str, Any]]) -> Figure:
    """The guard's accuracy by epoch, a line a run, a colour and marker a method; collapses are marked."""
    fig = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Axes = fig.add_subplot()
    for index, method in enumerate(METHODS):
        for number, one in enumerate(run for run in runs if run["method"] == method):
            accuracies = one["guard_pgd10"]
            axes.plot(
                range(1, len(accuracies) + 1), accuracies, color=PALETTE[index], marker=MARKERS[index], markersize=4,
                markevery=5, linewidth=1.4, alpha=0.85, label=method if number == 0 else None,
            )  # fmt: skip
            for epoch in one["guard_collapsed_epochs"][:1]:
                axes.plot(epoch, accuracies[epoch - 1], "X", color="#000000", markersize=9, zorder=5)
    axes.set_xlabel("Epoch")
    axes.set_xticks(epoch_ticks(max(len(one["guard_pgd10"]) for one in runs)))
    axes.set_ylabel("PGD-10 accuracy on held-out samples")
    axes.set_ylim(bottom=-0.02)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([], [], "X", color="#000000", markersize=9, linestyle="", label="collapse that the guard reports")
    axes.legend(frameon=False, fontsize=9)
    return fig


def main() -> int:
    """Train all and write the result; 0 where it shows what it was made to show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["Fast", "Fast, zero start", "N-FGSM"])
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("default", ff.OverfittingWarning)
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        root = classes_of(options.data_root, work / "images")
        runs = []
        for seed in options.seeds:
            for method in options.methods:
                one = config(method, seed, root, work)
                runs.append({"method": method, "setting": one.setting, "seed": seed, **run(one)})
                print(method, seed, runs[-1]["guard_collapsed_epochs"], runs[-1]["guard_pgd10"], flush=True)
        shared = replace(one, out=Path("-"), data_root=None).as_json()
    found_true = claims(runs)
    kept = (
        "model",
        "width",
        "epsilon",
        "epochs",
        "batch_size",
        "lr_max",
        "peak",
        "limit_train",
        "limit_test",
        "augment",
    )
    settings = {"classes": CLASSES, **{name: shared[name] for name in kept}}
    path = write("collapse", {"settings": settings, "runs": runs, "claims": found_true})
    save(figure(runs), path.with_suffix(".png"))
    print(found_true)
    return int(not all(found_true.values()))


if __name__ == "__main__":
    sys.exit(main())
