"""Whether a run's row is of the evaluation that the run's settings ask for."""

from freefast.config import TrainConfig
from freefast.reporting import Run


def departures(run: TrainConfig, samples: int) -> list[str]:
    """What says that the row is of another evaluation, in words; nothing where it is the run's own.

    run: finished
    samples: test images of its data

    Raises: UserError where its files are broken.
    """
    row = Run.load(run.out).row
    own = {"restarts": run.restarts, "evaluated_in": run.evaluate_in, "epsilon": run.epsilon, "samples": samples}
    others = [f"{name} {row.get(name)}, not {value}" for name, value in own.items() if row.get(name) != value]
    columns = {"natural": "natural accuracy", **{f"pgd{steps}": f"PGD-{steps}" for steps in run.eval_steps}}
    return others + [f"no {title}" for key, title in columns.items() if row.get(key) is None]
