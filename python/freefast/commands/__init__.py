"""What each command of the command line takes and does."""

from freefast.commands.bench import Bench
from freefast.commands.compare import Compare
from freefast.commands.evaluate import Evaluate
from freefast.commands.info import Info
from freefast.commands.report import Report
from freefast.commands.reproduce import Reproduce
from freefast.commands.speedrun import Speedrun
from freefast.commands.train import Train

__all__ = ["Bench", "Compare", "Evaluate", "Info", "Report", "Reproduce", "Speedrun", "Train"]
