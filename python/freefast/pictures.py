"""Pictures of trained runs that need their weights: attacked images, loss surfaces."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from freefast.attacks import PGD
from freefast.attacks.gradient import eval_mode
from freefast.attacks.problem import classify
from freefast.config import TrainConfig
from freefast.data import ImageData, Split
from freefast.data.dataset import to_pixels
from freefast.errors import UserError
from freefast.options import show_pixels
from freefast.precision import Precision
from freefast.reporting import examples, loss_surface, surface_figure
from freefast.reporting.loss_surface import LossSurface
from freefast.reporting.section import Picture, Section
from freefast.reporting.table import Column
from freefast.threat import ThreatModel
from freefast.training import setup
from freefast.training.results import load_model
from freefast.training.run_folder import RunFolder

_EXAMPLES, _STEPS = 10, 50
_SAMPLES, _POINTS = 32, 21
_ATTACK = (
    f"The first test image of each class, what PGD-{_STEPS} adds to it, and both together; below each, the class that "
    "the model sees. Steps are of epsilon / 4 from a random start; a sample stops once it is misclassified. "
    "Perturbations are magnified by the factor at their side; grey is none."
)
_FLATNESS = (
    "Adversarial training is to flatten the loss around an image. Nonlinearity says how far that succeeds: the largest "
    "distance, in nats, of the loss from its tangent plane at the clean image where no pixel moves by more than "
    "epsilon, averaged over the images. It is the local linearity of Qin et al. 2019, searched in one plane of the "
    "ball, and so a lower bound of theirs. Misclassified is the share of images that some point of this part has wrong."
)
_SURFACE_COLUMNS = (
    Column("Run", "run", None),
    Column("Mean loss, clean", "clean", 3),
    Column("Largest mean loss in the ball", "largest", 3),
    Column("Nonlinearity", "nonlinearity", 3),
    Column("Misclassified in the ball", "misclassified", 3),
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's model with what it takes to attack it."""

    name: str
    config: TrainConfig
    data: ImageData
    precision: Precision
    threat: ThreatModel
    device: torch.device
    model: nn.Module

    @classmethod
    @contextmanager
    def load(cls, folder: Path, name: str, device: str | None = None) -> Iterator["Trained"]:
        """A run on as many threads as it was trained with; backends give the same bits, any will do.

        device: None takes the run's own

        Raises: UserError where weights, data or device are missing or do not fit.
        """
        config = RunFolder(folder).read_config()
        place = setup.pick_device(device or config.device)
        data = setup.make_data(config)
        precision = setup.evaluation_precision(config)
        model = load_model(RunFolder(folder), config, data, precision).to(place)
        precision.require(model, place, torch.zeros(2, data.channels, *data.image_size, device=place))
        with setup.runtime("auto", config.threads, config.seed, place):
            yield cls(
                name=name, config=config, data=data, precision=precision, threat=setup.make_threat(config, data),
                device=place, model=model,
            )  # fmt: skip

    def predict(self, pixels: Tensor) -> Tensor:
        """(N,) int64: classes of images in [0, 1], on the CPU."""
        with eval_mode(self.model), torch.no_grad():
            return classify(self.precision.logits(self.model, self.threat.normalize(pixels))).cpu()


def draw(folders: Sequence[Path], names: Sequence[str], out: Path, device: str | None = None) -> list[Section]:
    """Write `examples.png`, or `examples_NAME.png` of several runs, and `loss_surface.png` into `out`.

    names: of the runs, each another
    device: where the models run; None takes each run's own

    Returns: sections of a report with them, and with the reason where a run's weights or data cannot be had
    """
    pictures, surfaces, missing = [], {}, []
    for name, folder in zip(names, folders, strict=True):
        path = out / ("examples.png" if len(folders) == 1 else f"examples_{name}.png")
        try:
            with Trained.load(folder, name, device) as run:
                pictures.append(_examples(run, path))
                surfaces[name] = _surface(run)
        except UserError as error:
            path.unlink(missing_ok=True)
            missing.append(f"{name} is not shown: {error}.")
    text = " ".join([*([_ATTACK] if pictures else []), *missing])
    sections = [Section(heading="Adversarial examples", text=text, pictures=pictures)]
    return sections + ([_surfaces(surfaces, out / "loss_surface.png")] if surfaces else [])


def _examples(run: Trained, path: Path) -> Picture:
    """Draw a test image of every class, attacked."""
    chosen = _one_a_class(run.data.test, _EXAMPLES)
    clean = to_pixels(run.data.test.images[chosen].to(run.device))
    labels = run.data.test.labels[chosen].to(run.device)
    epsilon = run.config.epsilon
    attack = PGD(
        run.model, eps=epsilon, alpha=epsilon / 4, steps=_STEPS, rng=run.config.seed, mean=run.data.mean,
        std=run.data.std, precision=run.precision,
    )  # fmt: skip
    adversarial = attack(clean, labels)
    before, after = run.predict(clean), run.predict(adversarial)
    examples.plot(clean.cpu(), adversarial.cpu(), labels.cpu(), before, after, run.data.classes, path)
    right = [int((seen == labels.cpu()).sum()) for seen in (before, after)]
    of = f"of {len(labels)}"
    caption = f"{run.name}: {right[0]} {of} right without attack, {right[1]} {of} at epsilon {show_pixels(epsilon)}."
    return Picture(path=path, caption=caption)


def _surface(run: Trained) -> LossSurface:
    """Of test images, as many of each class as can be."""
    split = run.data.test.take(_SAMPLES, run.config.seed)
    pixels = to_pixels(split.images)
    return loss_surface.measure(
        run.model, pixels, split.labels, run.threat, points=_POINTS, seed=run.config.seed, precision=run.precision
    )


def _surfaces(surfaces: dict[str, LossSurface], path: Path) -> Section:
    surface_figure.plot(surfaces, path)
    samples = sorted({len(surface.losses) for surface in surfaces.values()})
    caption = (
        f"Cross-entropy at x + a sign(gradient) + b r, averaged over {' or '.join(map(str, samples))} test images; r "
        f"is random signs, the same for runs of one seed. a and b take {_POINTS} values from -epsilon to epsilon, in "
        "pixel units; pixels are not clipped to [0, 1]. One colour scale for all, contour lines at 1, 2 and 5 of each "
        "decade. The cross marks the clean images; inside the dashed line no pixel moves by more than epsilon."
    )
    rows = [{"run": name, **_numbers(surface)} for name, surface in surfaces.items()]
    pictures = [Picture(path=path, caption=caption)]
    return Section(heading="Loss surface", text=_FLATNESS, rows=rows, columns=_SURFACE_COLUMNS, pictures=pictures)


def _numbers(surface: LossSurface) -> dict[str, float]:
    middle = len(surface.offsets) // 2
    return {
        "clean": surface.mean[middle, middle].item(),
        "largest": surface.mean[surface.in_ball].max().item(),
        "nonlinearity": surface.nonlinearity,
        "misclassified": surface.misclassified,
    }


def _one_a_class(split: Split, most: int) -> list[int]:
    """Positions of the first image of each class, of at most so many classes."""
    first: dict[int, int] = {}
    for position, label in enumerate(split.labels.tolist()):
        first.setdefault(label, position)
    return [first[label] for label in sorted(first)[:most]]
