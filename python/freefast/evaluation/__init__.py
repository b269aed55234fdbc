"""Natural accuracy and accuracy under attack over a whole data split."""

from freefast.evaluation.evaluate import Evaluation, evaluate
from freefast.evaluation.verdicts import Verdicts
from freefast.evaluation.warning import EvaluationWarning

__all__ = ["Evaluation", "EvaluationWarning", "Verdicts", "evaluate"]
