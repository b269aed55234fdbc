"""Evaluation under PGD-50, and the table PGD-10/20/50, against torchattacks, foolbox and ART.

    python benchmarks/peers/pgd_speed.py                     small_cnn on digits, two minutes
    python benchmarks/peers/pgd_speed.py --data-root DIR     PreActResNet18 on train/ and test/ of class folders
    python benchmarks/peers/pgd_speed.py --help

One process, the contenders in turn, each with the best of some batch sizes. All get the same model in eval mode with
frozen weights (none computes weight gradients), channels-last images, epsilon, step size epsilon / 4, one random start
of its own, and count who is right at the end. The model is trained once by Fast and kept in --run; epsilon is the one
that half of the images withstand. 1 where a goal is missed or accuracies disagree. Digits are so small that a pass
costs much the same for few images as for many, and leaving out images saves less than elsewhere.

Peers: `pip install -e ".[bench]"`, best in an environment of its own: torchattacks holds requests at 2.25. One that is
not there is left out, with its reason.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pgd_contenders import CONTENDERS, OURS, Case, installed
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from comparison import half_robust_epsilon, write

import freefast as ff
from freefast.data import ImageData, Split
from freefast.evaluation.verdicts import interval
from freefast.training import setup
from freefast.training.results import load_model
from freefast.training.run_folder import RunFolder

BATCHES = (32, 64, 128)
STEPS = (10, 20, 50)
GOALS = {"pgd50": 2.0, "table": 3.0}
"""How many times as long the fastest peer takes, at least, where about half of the samples are robust."""
HALF = (0.45, 0.55)
SWEEP = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 4)
"""Multiples of the epsilon that half of the samples withstand."""
TRAINING = ("method", "width", "epsilon", "epochs", "limit_train", "batch_size", "lr_max", "seed")
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008


def main() -> int:
    """Compare, write the result and the plot; 0 where the goals are met."""
    options = parse()
    if options.data_root is None:
        torch.set_num_threads(1)  # batches too small to share out
    config = configure(options)
    config, case = prepare(config, options)
    versions, missing = installed()
    for name, reason in missing.items():
        print(f"left out: {name}: {reason}", flush=True)
    names = [OURS, *versions]
    batches = {name: best_batch(name, case) for name in names}
    print(f"{len(case.split)} samples, epsilon {case.threat.epsilon * 255:.3g}/255, batch sizes {batches}", flush=True)
    seconds, robust = measure(case, batches, options.repeats)
    result = {
        "model": config.model, "training": {name: getattr(config, name) for name in TRAINING},
        "data": options.data_root.name if options.data_root else config.dataset,
        "samples": len(case.split), "repeats": options.repeats, "missing": missing,
        "epsilon": case.threat.epsilon, "alpha": case.alpha, "batch_sizes": batches, "versions": versions,
        **judge(seconds, robust, case.split.labels), "goals": GOALS,
    }  # fmt: skip
    if versions:
        fastest = min(versions, key=lambda name: statistics.median(seconds[name]["pgd50"]))
        result["sweep"] = {"peer": fastest, "rows": sweep(case, batches, fastest, options.sweep_samples)}
    path = write(options.subject, result)
    if "sweep" in result:
        plot(result, path.with_suffix(".png"))
    print(f"wrote {path}")
    print(*result["failures"], sep="\n")
    return int(bool(result["failures"]))


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="train/ and test/ of class folders, CIFAR-10's for one")
    parser.add_argument("--samples", type=int, help="images, balanced over the classes (500; of digits 1,000)")
    parser.add_argument("--sweep-samples", type=int, help="of them, for the sweep over epsilon (200; of digits all)")
    parser.add_argument(
        "--epsilon", type=float, help="pixel units, where it is known that half of the samples withstand"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=16, help="channels of the model's first stage")
    parser.add_argument("--run", type=Path, help="run folder of the model")
    options = parser.parse_args()
    name = "digits" if options.data_root is None else "images"
    options.samples = options.samples or (1000 if name == "digits" else 500)
    options.sweep_samples = options.sweep_samples or (options.samples if name == "digits" else 200)
    options.run = options.run or Path(f"runs/peers-{name}-{options.width}")
    options.subject = f"peers_pgd_{name}"
    return options


def configure(options: argparse.Namespace) -> ff.TrainConfig:
    """The model's training: Fast, a few minutes on two CPU cores."""
    shared = {"method": "fast", "width": options.width, "device": "cpu", "eval_steps": (10,), "out": options.run}
    if options.data_root is None:
        return ff.TrainConfig(dataset="digits", epochs=5, **shared)
    return ff.TrainConfig(
        dataset="imagefolder", data_root=options.data_root, model="preactresnet18", epsilon=2 / 255, epochs=5,
        limit_train=25000, limit_test=1000, batch_size=64, lr_max=0.1, augment=False, **shared,
    )  # fmt: skip


def prepare(config: ff.TrainConfig, options: argparse.Namespace) -> tuple[ff.TrainConfig, Case]:
    """The model's settings and the case; trains where there is no model."""
    folder = RunFolder(options.run)
    if not (options.run / "results.json").exists():
        ff.train(config, overwrite=True)
    config = folder.read_config()
    data = setup.make_data(config)
    model = load_model(folder, config, data, ff.Precision()).requires_grad_(False)
    split = pick(data).take(options.samples, seed=0)
    case = Case(model=model, split=split, threat=setup.make_threat(config, data))
    return config, half_robust(case) if options.epsilon is None else at(case, options.epsilon)


def pick(data: ImageData) -> Split:
    """The test images; of digits, whose are few, the training images too."""
    if data.name != "digits":
        return data.test
    images, labels = torch.cat([data.train.images, data.test.images]), torch.cat([data.train.labels, data.test.labels])
    return Split(images=images, labels=labels)


def half_robust(case: Case) -> Case:
    """The case with the epsilon that half of its samples withstand for 50 steps."""

    def robust(epsilon: float) -> float:
        return CONTENDERS[OURS](at(case, epsilon), 128, STEPS[-1:])[STEPS[-1]].double().mean().item()

    return at(case, half_robust_epsilon(robust))


def at(case: Case, epsilon: float, samples: int | None = None) -> Case:
    """The case at another epsilon, and on some of its samples, balanced over the classes."""
    split = case.split if samples is None else case.split.take(samples, seed=0)
    threat = ff.ThreatModel(epsilon=epsilon, mean=case.threat.mean, std=case.threat.std)
    return Case(model=case.model, split=split, threat=threat)


def best_batch(name: str, case: Case) -> int:
    """The fastest batch size over a few steps of all samples."""
    return min(BATCHES, key=lambda size: timed(name, case, size, (5,))[0])


def timed(name: str, case: Case, batch_size: int, steps: tuple[int, ...]) -> tuple[float, dict[int, Tensor]]:
    """Seconds, and who is right."""
    start = time.perf_counter()
    robust = CONTENDERS[name](case, batch_size, steps)
    return time.perf_counter() - start, robust


def measure(
    case: Case, batches: dict[str, int], repeats: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[int, Tensor]]]:
    """Seconds of PGD-50 and of the table, one a repeat; who is right. The contenders take turns, the first one too."""
    names = list(batches)
    seconds: dict[str, dict[str, list[float]]] = {name: {"pgd50": [], "table": []} for name in names}
    robust = {}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            last, right = timed(name, case, batches[name], STEPS[-1:])
            if name == OURS:
                table, right = timed(name, case, batches[name], STEPS)
            else:
                fewer, others = timed(name, case, batches[name], STEPS[:-1])
                table, right = fewer + last, others | right
            robust[name] = right
            seconds[name]["pgd50"].append(last)
            seconds[name]["table"].append(table)
            print(f"repeat {repeat + 1}: {name}: PGD-50 {last:.2f} s, table {table:.2f} s", flush=True)
    return seconds, robust


def judge(seconds: dict[str, dict[str, list[float]]], robust: dict[str, dict[int, Tensor]], labels: Tensor) -> dict:
    """Medians, ratios, accuracies with their intervals, and what is not as wanted."""
    medians = {name: {what: statistics.median(values) for what, values in row.items()} for name, row in seconds.items()}
    ratios = {
        name: {what: row[what] / medians[OURS][what] for what in row} for name, row in medians.items() if name != OURS
    }
    accuracies = {name: {count: accuracy(right) for count, right in row.items()} for name, row in robust.items()}
    share = accuracies[OURS][STEPS[-1]]["share"]
    failures = [] if HALF[0] <= share <= HALF[1] else [f"not half of the samples are robust: {share:.1%}"]
    for what, goal in GOALS.items():
        least = min((row[what] for row in ratios.values()), default=math.inf)
        print(f"{what}: the fastest peer takes {least:.2f} times as long, wanted {goal}", flush=True)
        if least < goal:
            failures.append(f"{what}: {least:.2f} times, wanted {goal}")
    for name, count, own in ((name, count, own) for name, row in accuracies.items() for count, own in row.items()):
        low, high = accuracies[OURS][count]["interval"]
        own["agrees"] = low <= own["share"] <= high
        print(f"{name}: PGD-{count} {own['share']:.1%}, ours {low:.1%} to {high:.1%}", flush=True)
        if not own["agrees"]:
            failures.append(f"{name}: PGD-{count} {own['share']:.1%} is not within {low:.1%} to {high:.1%}")
    same = {
        name: {count: (right == robust[OURS][count]).double().mean().item() for count, right in row.items()}
        for name, row in robust.items()
        if name != OURS
    }
    return {
        "seconds": seconds, "medians": medians, "ratios": ratios, "accuracies": accuracies,
        "equal_verdicts": same, "failures": failures,
    }  # fmt: skip


def accuracy(right: Tensor) -> dict[str, Any]:
    """A share and its 95% confidence interval."""
    return {"share": right.double().mean().item(), "interval": interval(int(right.sum()), len(right))}


def sweep(case: Case, batches: dict[str, int], peer: str, samples: int) -> list[dict[str, float]]:
    """PGD-50 of ours and of a peer from all robust to none."""
    rows = []
    for factor in SWEEP:
        one = at(case, factor * case.threat.epsilon, samples)
        ours, right = timed(OURS, one, batches[OURS], STEPS[-1:])
        theirs, others = timed(peer, one, batches[peer], STEPS[-1:])
        shares = {
            "robust": right[STEPS[-1]].double().mean().item(),
            f"robust_{peer}": others[STEPS[-1]].double().mean().item(),
        }
        rows.append({"epsilon": one.threat.epsilon, **shares, OURS: ours, peer: theirs, "ratio": theirs / ours})
        print("sweep:", {name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    return rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Time against robust accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    peer, rows = result["sweep"]["peer"], result["sweep"]["rows"]
    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for name, colour, marker in ((peer, ORANGE, "s"), (OURS, BLUE, "o")):
        axes.plot(
            [row["robust"] * 100 for row in rows], [row[name] for row in rows], marker, ls="-", c=colour, label=name
        )
    axes.set(
        xlabel="samples robust under PGD-50 (%)", ylabel="seconds", ylim=(0, None), title=f"PGD-50, {result['data']}"
    )
    axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
