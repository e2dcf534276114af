from .experiment import Experiment
from .report import write_report
from .run import run_comparison

__all__ = [
    "Experiment",
    "run_comparison",
    "write_report",
]
