"""Clean images, their perturbations and the adversarial images, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from freefast.reporting.drawing import save
from freefast.reporting.text import shorten

CORRECT, WRONG = "#00704F", "#B34700"
PANEL = 1.05  # inches: the room of an image


def plot(
    clean: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    clean_pred: Tensor,
    adv_pred: Tensor,
    classes: Sequence[str],
    path: Path | str,
) -> None:
    """Write the figure of `figure` as a PNG."""
    save(figure(clean, adversarial, labels, clean_pred, adv_pred, classes), path)


def figure(
    clean: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    clean_pred: Tensor,
    adv_pred: Tensor,
    classes: Sequence[str],
) -> Figure:
    """A column a sample: clean, magnified perturbation (grey is none), adversarial; predictions below.

    clean, adversarial: (N, 1 or 3, H, W) float, in [0, 1]
    labels: (N,) int64, index into `classes`
    clean_pred, adv_pred: (N,) int64, the same, or an output that no class of the data has

    Raises: ValueError where a shape is none of these.
    """
    _check(clean, adversarial, labels, clean_pred, adv_pred)
    clean, adversarial = (images.detach().float().cpu() for images in (clean, adversarial))
    perturbation = adversarial - clean
    largest = perturbation.abs().max().item()
    gain = 0.5 / largest if largest > 0 else 1.0
    names = [shorten(name, 10) for name in classes]
    truth = labels.tolist()
    rows = (
        ("Clean", clean, clean_pred.tolist()),
        (f"Perturbation\n\N{MULTIPLICATION SIGN}{gain:.3g}", 0.5 + gain * perturbation, None),
        ("Adversarial", adversarial, adv_pred.tolist()),
    )
    samples, _, height, width = clean.shape
    fig = Figure(figsize=(0.8 + PANEL * samples, 1.0 + 3 * PANEL * height / width), layout="constrained")
    panels = fig.subplots(3, samples, squeeze=False)
    for (title, images, predictions), line in zip(rows, panels, strict=True):
        line[0].set_ylabel(title)
        for sample, axes in enumerate(line):
            _show(axes, images[sample])
            if predictions is not None:
                _mark(axes, _name(names, predictions[sample]), predictions[sample] == truth[sample])
    for axes, label in zip(panels[0], truth, strict=True):
        axes.set_title(f"true: {names[label]}", fontsize=9, parse_math=False)
    return fig


def _name(names: Sequence[str], output: int) -> str:
    return names[output] if output < len(names) else f"output {output}"


def _show(axes: Axes, image: Tensor) -> None:
    """image: (1 or 3, H, W) float; a single channel is shown as grey."""
    pixels: np.ndarray = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _mark(axes: Axes, name: str, correct: bool) -> None:
    mark, colour = ("\N{CHECK MARK}", CORRECT) if correct else ("\N{BALLOT X}", WRONG)
    axes.set_xlabel(f"{mark} {name}", color=colour, fontsize=10, fontweight="bold", parse_math=False)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2)


def _check(clean: Tensor, adversarial: Tensor, *indices: Tensor) -> None:
    if clean.ndim != 4 or clean.shape[0] == 0 or clean.shape[1] not in (1, 3):
        raise ValueError(f"examples: clean: wanted (N > 0, 1 or 3, H, W), got {tuple(clean.shape)}")
    if adversarial.shape != clean.shape:
        raise ValueError(f"examples: adversarial: wanted {tuple(clean.shape)}, got {tuple(adversarial.shape)}")
    wanted = torch.Size([len(clean)])
    for name, index in zip(("labels", "clean_pred", "adv_pred"), indices, strict=True):
        if index.shape != wanted:
            raise ValueError(f"examples: {name}: wanted {tuple(wanted)}, got {tuple(index.shape)}")
