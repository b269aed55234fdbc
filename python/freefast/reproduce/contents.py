"""What the report consists of: its runs, the tables of its sections, its figures."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from freefast.errors import UserError

TITLE = "Free vs Fast adversarial training"

LOGS = {
    "free-preactresnet18-m2-e45": "free_output_PreActResNet18_m2",
    "free-preactresnet18-m4-e45": "free_output_PreActResNet18_m4",
    "free-preactresnet18-m8-e45-charts": "free_output_PreActResNet18_m8_charts",
    "free-preactresnet18-m10-e45": "free_output_PreActResNet18_m10",
    "free-preactresnet18-m8-e90": "free_output_PreActResNet18_m8_e90",
    "free-resnet50-m8-e90": "free_output_ResNet50_m8_e90",
    "fast-preactresnet18-128-a10-e45": "fast_output_PreActResNet18_128_a10",
    "fast-preactresnet18-128-a10-e45-charts": "fast_output_PreActResNet18_128_a10_charts",
    "fast-preactresnet18-256-a10-e45": "fast_output_PreActResNet18_256_a10",
    "fast-preactresnet18-128-a16-e45": "fast_output_PreActResNet18_128_a16",
    "fast-preactresnet18-256-a16-e45": "fast_output_PreActResNet18_256_a16",
    "fast-preactresnet18-128-a10-e90": "fast_output_PreActResNet18_128_a10_e90",
    "fast-resnet50-128-a10-e90": "fast_output_ResNet50_128_a10_e90",
}
"""The published log of each recipe, a recipe being named without its folder."""

_FREE_45, _FREE_90, _FREE_RESNET = (
    "free-preactresnet18-m8-e45-charts", "free-preactresnet18-m8-e90", "free-resnet50-m8-e90",
)  # fmt: skip
_FAST_45, _FAST_90, _FAST_RESNET = (
    "fast-preactresnet18-128-a10-e45-charts", "fast-preactresnet18-128-a10-e90", "fast-resnet50-128-a10-e90",
)  # fmt: skip

TABLES: Mapping[str, tuple[str, ...]] = {
    "table-5.1": (
        "free-preactresnet18-m2-e45", "free-preactresnet18-m4-e45", _FREE_45, "free-preactresnet18-m10-e45",
        _FREE_RESNET,
    ),
    "table-6.1": (
        _FAST_45, "fast-preactresnet18-256-a10-e45", "fast-preactresnet18-128-a16-e45",
        "fast-preactresnet18-256-a16-e45", _FAST_RESNET,
    ),
    "table-7.1": (_FREE_90, _FAST_90),
    "table-7.2": (_FREE_RESNET, _FAST_RESNET),
}  # fmt: skip
"""The recipe of every row of the tables, which have no numbers in the report and are called by their sections.

The report trained Fast with 128, 10/255 and 45 epochs twice, once with the evaluations of its curves. That one serves
for both here: evaluation leaves the training as it is.
"""

NOTES = {
    "table-5.1": "The report's row of m=8 is not by its published log, which has no PGD-10 and PGD-20 and ends at a "
    "PGD-50 of 0.480, its best.",
    "table-6.1": "The report's first row is of two runs of the same settings: Natural and PGD-50 are of epoch 44 of "
    "the one that was attacked after every epoch, PGD-10 and PGD-20 of the end of the other. Ours is one run.",
    "table-7.2": "The report's times of Free are those of PreActResNet18 in its table of section 7.1; ResNet50's own, "
    "by its log, are in the table of section 5.1.",
}
"""What a reader must know of the report's own numbers, but for collapses, which `collapses` reads from the logs."""

PICTURED = (_FREE_45, _FAST_45, "fast-preactresnet18-128-a16-e45")
"""Recipes whose networks the page shows attacked images and loss surfaces of: both methods, and one that collapsed."""


class Figure(NamedTuple):
    """Two panels: accuracy and accuracy under PGD-50 by epoch."""

    title: str

    runs: Mapping[str, str]
    """The recipe of each run by its label."""

    training: bool
    """Whether accuracy in training is shown too."""


FIGURES: Mapping[str, Figure] = {
    "figure-1": Figure("Free, PreActResNet18, m=8, 45 epochs", {"Free": _FREE_45}, True),
    "figure-2": Figure("Free, ResNet50, m=8, 90 epochs", {"Free": _FREE_RESNET}, True),
    "figure-3": Figure("Fast, PreActResNet18, alpha=10/255, 45 epochs", {"Fast": _FAST_45}, True),
    "figure-4": Figure("Fast, ResNet50, alpha=10/255, 90 epochs", {"Fast": _FAST_RESNET}, True),
    "figure-5": Figure("Free and Fast, PreActResNet18, 90 epochs", {"Free": _FREE_90, "Fast": _FAST_90}, False),
    "figure-6": Figure("Free and Fast, ResNet50, 90 epochs", {"Free": _FREE_RESNET, "Fast": _FAST_RESNET}, False),
    "figure-7": Figure("Free, m=8, 90 epochs", {"PreActResNet18": _FREE_90, "ResNet50": _FREE_RESNET}, False),
    "figure-8": Figure("Fast, alpha=10/255, 90 epochs", {"PreActResNet18": _FAST_90, "ResNet50": _FAST_RESNET}, False),
}
"""The report's figures. Its caption of figure 3 says ResNet50 and m=8; of the published logs only that of Fast with
PreActResNet18 has 45 epochs and curves."""


def chosen(only: tuple[str, ...]) -> tuple[str, ...]:
    """The tables and figures by these names, in the report's order; all where there are none.

    Raises: UserError where one is unknown.
    """
    known = (*TABLES, *FIGURES)
    for name in only:
        if name not in known:
            raise UserError(f"only: wanted some of {', '.join(known)}, got {name!r}")
    return tuple(name for name in known if name in only or not only)


def recipes_of(names: Iterable[str]) -> tuple[str, ...]:
    """The recipes that tables and figures need, each once, in the report's order."""
    needed = {recipe for name in names for recipe in _recipes(name)}
    return tuple(recipe for recipe in LOGS if recipe in needed)


def _recipes(name: str) -> tuple[str, ...]:
    return TABLES[name] if name in TABLES else tuple(FIGURES[name].runs.values())
