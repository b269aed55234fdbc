"""PGD of torchattacks, foolbox, ART and freefast as functions of one kind: images in, who is right at the end out."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor, nn

import freefast as ff
from freefast.data import Split


@dataclass(frozen=True, kw_only=True)
class Case:
    """What every contender is given: eval mode, frozen weights, one random start, step size epsilon / 4."""

    model: nn.Module
    """Takes normalised images, channels last."""

    split: Split
    """The images to attack."""

    threat: ff.ThreatModel
    """Ball, and the normalisation."""

    @property
    def alpha(self) -> float:
        """Step size, pixel units."""
        return self.threat.epsilon / 4


Robust = dict[int, Tensor]
"""(N,) bool by number of steps: right under the attack."""
Contender = Callable[[Case, int, tuple[int, ...]], Robust]
"""From a case, a batch size and numbers of steps."""


class Normalized(nn.Module):
    """A model of pixels in [0, 1]."""

    def __init__(self, model: nn.Module, threat: ff.ThreatModel) -> None:
        super().__init__()
        self.model, self.threat = model, threat

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, C, H, W) float32, pixel units. Returns: (N, classes) logits."""
        return self.model(self.threat.normalize(images).contiguous(memory_format=torch.channels_last))


def freefast(case: Case, batch_size: int, steps: tuple[int, ...]) -> Robust:
    """One pass for all numbers of steps."""
    scores = ff.evaluate(case.model, case.split, case.threat, steps=steps, alpha=case.alpha, batch_size=batch_size)
    return {count: scores.verdicts.robust(count) for count in steps}


def torchattacks(case: Case, batch_size: int, steps: tuple[int, ...]) -> Robust:
    """Batch by batch; the count is one more forward pass."""
    from torchattacks import PGD

    model = Normalized(case.model, case.threat).eval()

    def robust(images: Tensor, labels: Tensor, count: int) -> Tensor:
        attack = PGD(model, eps=case.threat.epsilon, alpha=case.alpha, steps=count, random_start=True)
        adversarial = attack(images, labels)
        with torch.no_grad():
            return model(adversarial).argmax(1) == labels

    return in_batches(case, batch_size, steps, robust)


def foolbox(case: Case, batch_size: int, steps: tuple[int, ...]) -> Robust:
    """Batch by batch; the count is its own."""
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    model = PyTorchModel(Normalized(case.model, case.threat).eval(), bounds=(0, 1), device="cpu")

    def robust(images: Tensor, labels: Tensor, count: int) -> Tensor:
        attack = LinfPGD(abs_stepsize=case.alpha, steps=count, random_start=True)
        return ~attack(model, images, labels, epsilons=case.threat.epsilon)[2]

    return in_batches(case, batch_size, steps, robust)


def art(case: Case, batch_size: int, steps: tuple[int, ...]) -> Robust:
    """It makes its own batches; the count is its classifier's prediction."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    images, labels = case.split.images.float().div(255).numpy(), case.split.labels.numpy()
    classifier = PyTorchClassifier(
        Normalized(case.model, case.threat).eval(), loss=nn.CrossEntropyLoss(), input_shape=images.shape[1:],
        nb_classes=case.model.linear.out_features, clip_values=(0.0, 1.0), device_type="cpu",
    )  # fmt: skip

    def robust(count: int) -> Tensor:
        attack = ProjectedGradientDescentPyTorch(
            classifier, eps=case.threat.epsilon, eps_step=case.alpha, max_iter=count, num_random_init=1,
            batch_size=batch_size, verbose=False,
        )  # fmt: skip
        predictions = classifier.predict(attack.generate(images, labels), batch_size=batch_size)
        return torch.from_numpy(predictions.argmax(1) == labels)

    return {count: robust(count) for count in steps}


OURS = "freefast"
CONTENDERS: dict[str, Contender] = {OURS: freefast, "torchattacks": torchattacks, "foolbox": foolbox, "art": art}
PACKAGES = {"torchattacks": "torchattacks", "foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}


def in_batches(
    case: Case, batch_size: int, steps: tuple[int, ...], robust: Callable[[Tensor, Tensor, int], Tensor]
) -> Robust:
    """One attack on every batch for each number of steps."""
    batches = list(zip(case.split.images.split(batch_size), case.split.labels.split(batch_size), strict=True))
    return {
        count: torch.cat([robust(images.float().div(255), labels, count) for images, labels in batches])
        for count in steps
    }


def installed() -> tuple[dict[str, str], dict[str, str]]:
    """Versions of the peers that can be imported; reasons of those that cannot."""
    versions, missing = {}, {}
    for name, package in PACKAGES.items():
        try:
            __import__(name)
            versions[name] = metadata.version(package)
        except (ImportError, metadata.PackageNotFoundError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
    return versions, missing
