"""Natural accuracy and accuracy under attack over a whole data split."""

from freefast.evaluation.evaluate import Evaluation, evaluate
from freefast.evaluation.sanity import EvaluationWarning
from freefast.evaluation.verdicts import Verdicts

__all__ = ["Evaluation", "EvaluationWarning", "Verdicts", "evaluate"]
