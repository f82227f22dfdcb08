"""Literal split-conformal quantile: sort, count, take."""

import math
from fractions import Fraction


def quantile(scores: list[float], coverage: Fraction) -> float:
    """Score of rank ceil((N + 1) * coverage), in exact arithmetic; NaN scores do not count."""
    known = sorted(score for score in scores if score == score)
    rank = math.ceil((len(known) + 1) * coverage)
    return known[rank - 1] if rank <= len(known) else math.inf
