"""Tables, curves, pictures and the HTML report of training runs."""

from freefast.reporting import (
    curves,
    environment,
    examples,
    falls,
    loss_surface,
    report,
    results,
    surface_figure,
    table,
    time_accuracy,
)
from freefast.reporting.results import Results, Run
from freefast.reporting.section import Picture, Section

__all__ = [
    "Picture",
    "Results",
    "Run",
    "Section",
    "curves",
    "environment",
    "examples",
    "falls",
    "loss_surface",
    "report",
    "results",
    "surface_figure",
    "table",
    "time_accuracy",
]
