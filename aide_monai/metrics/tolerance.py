"""How far a border may lie from the reference's and still be called right, which the NSD counts."""

from __future__ import annotations

import math

from aide_monai.errors import InputError

TOLERANCE_MM = 2.0
"""Where nobody asks for another."""


def check_tolerance(tolerance_mm: float) -> None:
    """Raises InputError for a tolerance that is none."""
    if not 0 <= tolerance_mm < math.inf:
        raise InputError(f"tolerance_mm is {tolerance_mm}; expected a distance in mm, at least 0")
