from .examine import Examined, Suspect, examine
from .kinds import KINDS
from .rank import CaseAudit, Ranking, rank, ranking

__all__ = [
    "KINDS",
    "CaseAudit",
    "Examined",
    "Ranking",
    "Suspect",
    "examine",
    "rank",
    "ranking",
]
