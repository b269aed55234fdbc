"""Tables, curves, pictures and the HTML report of training runs."""

from freefast.reporting import curves, environment, examples, report, results, table
from freefast.reporting.results import Results, Run

__all__ = ["Results", "Run", "curves", "environment", "examples", "report", "results", "table"]
