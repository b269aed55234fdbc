"""`make gpu`: everything that needs a GPU, in one go, offline; results in benchmarks/results, logs in runs/gpu."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "runs" / "gpu"
RESULTS = ROOT / "benchmarks" / "results"
REPORT = LOGS / "tests.xml"
KERNELS = LOGS / "kernels.json"
PRECISION = LOGS / "precision.json"
EVALUATION = LOGS / "evaluation.json"
TRAIN_STEP = LOGS / "train_step" / "results.json"
TRAINED = LOGS / "fast" / "results.json"
TRAIN_STEP_OPTIONS = ["--device", "cuda", "--methods", "fast", "free", "--precisions", "half-fp16", "half-bf16", "fp32"]
TRAIN_STEP_OPTIONS += ["--skip", "compile", "--budget", "100"]
EVALUATED = ["--precisions", "fp32", "half-fp16"]
LOAD = "import sys, freefast; freefast.data.load('imagefolder', root=sys.argv[1])"
"""Decodes the images into their cache."""
ON_NATIVE = "master_sgd_equals or found_inf or elements_have or gradient_sums or test_moments or strided_columns"
SANITIZED = f"guard_bands or many_channels or masked_nan or (cuda-native and ({ON_NATIVE}))"
SANITIZED = f"({SANITIZED}) and not (test_normalization and (dtype0 or dtype1))"  # float16 stands for all: time
_GRACE = 60.0
"""Seconds that a step which is interrupted has to end."""


@dataclass(frozen=True)
class Step:
    """One command of the sequence and the files that it needs."""

    name: str
    command: list[str]
    needs: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limit: float = 300.0
    """Seconds after which it is stopped, and has failed."""


def sanitizer(tool: str) -> Step:
    """compute-sanitizer's tool over the native operators' tests, each tensor in an allocation of its own."""
    operators = ROOT / "tests" / "advkernels"
    on_device = ROOT / "tests" / "cuda" / "test_on_device.py"
    tests = (on_device, operators / "test_sgd_step.py", operators / "test_normalization.py")
    command = ["compute-sanitizer", f"--tool={tool}", "--error-exitcode=9", sys.executable, "-m", "pytest"]
    command += ["-c", str(ROOT / "pyproject.toml"), *map(str, tests), "-k", SANITIZED]
    return Step(tool, command, tests, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTEST_ADDOPTS": ""}, limit=240.0)


def build_variables() -> dict[str, str]:
    """All operators, compiled for this machine's GPU unless something else is asked for."""
    every = {"ADVKERNELS_BUILD_NATIVE": "1", "ADVKERNELS_BUILD_CUDA": "1"}
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    if "TORCH_CUDA_ARCH_LIST" in os.environ or not shutil.which(query[0]):
        return every
    found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return {**every, "TORCH_CUDA_ARCH_LIST": found}


def workers() -> list[str]:
    """pytest's options for a process a core, a few left to the sanitizers, where pytest-xdist is there."""
    return ["-n", str(max(1, (os.cpu_count() or 1) - 4))] if find_spec("xdist") else []


def stages(images: Path | None) -> list[list[Step]]:
    """Build, test, measure, train; the steps of a stage run side by side.

    images: a folder with train/ and test/, for what trains; None takes digits and made-up images
    """
    python = sys.executable
    dataset = (
        ["--dataset", "imagefolder", "--data-root", str(images), "--limit-test", "1000"]
        if images
        else ["--dataset", "digits"]
    )
    model = "preactresnet18" if images else "small_cnn"
    install = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", str(ROOT)]
    tests = [python, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests"), "-m", "gpu"]
    tests += ["--verbosity=1", f"--junitxml={REPORT}", *workers()]  # names, also of a run that is stopped
    train = [python, "-m", "freefast", "train", "fast", "--model", model, *dataset, "--device", "cuda"]
    train += ["--epochs", "5", "--precision", "half-fp16", "--eval-steps", "50"]
    train += ["--out", str(TRAINED.parent), "--overwrite"]
    names = ("gpu_kernels.py", "gpu_precision.py", "gpu_evaluation.py")
    kernels, precision, evaluation = (ROOT / "benchmarks" / name for name in names)
    train_step = [python, "-m", "freefast", "bench", *TRAIN_STEP_OPTIONS, "--out", str(TRAIN_STEP.parent)]
    on_images = ["--images", str(images)] if images else []
    return [
        [Step("device", ["nvidia-smi"])],
        [Step("install", install, (ROOT / "setup.py", ROOT / "csrc" / "formulas.h"), build_variables())],
        [
            Step("tests", tests, (ROOT / "tests" / "conftest.py",)),
            *map(sanitizer, ("memcheck", "racecheck", "initcheck")),
            Step("info", [python, "-m", "advkernels.info"]),
            *(
                [Step("images", [python, "-c", LOAD, str(images)], (images / "train", images / "test"))]
                if images
                else []
            ),
        ],
        [Step("kernels", [python, str(kernels), str(KERNELS)], (kernels,))],
        [Step("precision", [python, str(precision), str(PRECISION), *on_images], (precision,))],
        [Step("evaluation", [python, str(evaluation), str(EVALUATION), *EVALUATED, *on_images], (evaluation,))],
        [Step("train_step", train_step)],
        [Step("train", train)],
    ]


def attempt(step: Step, log: IO[str]) -> int:
    """The command's exit code; 124 where it was interrupted at its limit, so that it could still say what it knew."""
    environment = os.environ | step.environment
    process = subprocess.Popen(
        step.command, cwd=LOGS.parent, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(step.limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # with the processes of its own
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return 124


def run(step: Step) -> dict[str, object]:
    """Run a step into its log; what it did, for the result file."""
    start = time.perf_counter()
    with (LOGS / f"{step.name}.log").open("w") as log:
        try:
            code = attempt(step, log)
        except OSError as error:
            log.write(f"{error}\n")
            code = 127
    seconds = round(time.perf_counter() - start, 1)
    last = lines_of(step.name)[-12:]
    title = f"== {step.name}: {' '.join(step.command)}"
    print("\n".join([title, *last, f"-- exit {code}, {seconds} s"]), flush=True)
    command = [part.replace(sys.executable, "python").replace(str(ROOT), ".") for part in step.command]
    return {"command": " ".join(command), "exit_code": code, "seconds": seconds}


def lines_of(step: str) -> list[str]:
    """A step's log, whatever it was killed in."""
    log = LOGS / f"{step}.log"
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def count_tests() -> dict[str, int]:
    """Passed, failed and skipped tests of the report that pytest wrote, if it came to that."""
    try:
        suite = ElementTree.parse(REPORT).getroot()[0].attrib
    except (OSError, ElementTree.ParseError, IndexError):
        return {}
    tests, skipped = int(suite["tests"]), int(suite["skipped"])
    failed = int(suite["failures"]) + int(suite["errors"])
    return {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}


def failed_tests() -> list[str]:
    """Names of the tests that failed, by pytest's own lines, which a run that is stopped has too."""
    ends = re.compile(r"(?:FAILED|ERROR) (?:\.\./)?(tests/.+?)\s*(?: - .*)?$|^(?:\.\./)?(tests/.+) (?:FAILED|ERROR)")
    found = map(ends.search, lines_of("tests"))
    return sorted({match[1] or match[2] for match in found if match})


def training_row() -> dict[str, object]:
    """The row of the training run."""
    return json.loads(TRAINED.read_text())["rows"][-1] if TRAINED.exists() else {}


def rows_of(path: Path) -> list[dict[str, object]]:
    """What a benchmark measured."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def write(outcome: Mapping[str, dict[str, object]], commit: str | None) -> Path:
    """What is known so far, as the result file of this device and day."""
    from freefast.reporting import environment  # what the install step made

    facts = environment.describe("cuda")
    device = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    tests = count_tests() | {"failures": failed_tests()}
    result = {"steps": outcome, "tests": tests, "kernels": rows_of(KERNELS)}
    result |= {"precision": rows_of(PRECISION), "evaluation": rows_of(EVALUATION)}
    result |= {"train_step": rows_of(TRAIN_STEP), "train": training_row()}
    commit = commit or facts["commit"] or "unknown"
    result["environment"] = facts | {"commit": commit}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"gpu_{device}_{facts['date'][:10]}_{commit[:7]}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def main() -> int:
    """Run all steps, also after one that failed; 0 where every one passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder with train/ and test/ of class folders, e.g. CIFAR-10's")
    parser.add_argument("--dry-run", action="store_true", help="print each step and check the files that it needs")
    parser.add_argument("--commit", help="the commit of these sources, where their checkout cannot tell")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="steps to run, after device and install")
    options = parser.parse_args()
    images = options.images.resolve() if options.images else None
    sequence = stages(images)
    names = [step.name for stage in sequence for step in stage]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: wanted some of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    if options.only:
        wanted = {"device", "install", *options.only}
        sequence = [chosen for stage in sequence if (chosen := [step for step in stage if step.name in wanted])]
    every = [step for stage in sequence for step in stage]
    missing = [str(path) for step in every for path in step.needs if not path.exists()]
    if options.dry_run or missing:
        for step in every:
            variables = (f"{name}={value}" for name, value in step.environment.items())
            print(f"{step.name}: {' '.join([*variables, *step.command])}")
        print(*(f"missing: {path}" for path in missing), sep="\n")
        return 2 if missing else 0
    LOGS.mkdir(parents=True, exist_ok=True)
    for file in (REPORT, KERNELS, PRECISION, EVALUATION, TRAIN_STEP, TRAINED):
        file.unlink(missing_ok=True)
    outcome: dict[str, dict[str, object]] = {}
    for stage in sequence:
        with ThreadPoolExecutor(len(stage)) as pool:
            outcome |= dict(zip((step.name for step in stage), pool.map(run, stage), strict=True))
        if "install" in outcome:
            if outcome["install"]["exit_code"]:
                return 1
            path = write(outcome, options.commit)
    print(f"wrote {path.relative_to(ROOT)}: tests {count_tests()}")
    return int(any(step["exit_code"] for step in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
