"""The warning of an evaluation."""

import warnings


class EvaluationWarning(UserWarning):
    """An evaluation under attack cannot be trusted as it is."""


def warn(text: str) -> None:
    """Emit an EvaluationWarning."""
    warnings.warn(text, EvaluationWarning, stacklevel=5)
