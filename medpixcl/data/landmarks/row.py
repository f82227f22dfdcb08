"""One landmark of one image as a file holds it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medpixcl.data.landmarks.same_image import MarkedOn

CORRECTED = "corrected"
"""Flag of a landmark that lies where a reader put it."""


@dataclass(frozen=True)
class LandmarkRow:
    """One landmark of one image; without ``px`` and ``mm`` it is missing.

    Attributes:
        image: Name of the image: a path relative to the landmark file, a file name, or a name without suffix.
        landmark: Name of the landmark.
        line: Place of the landmark in its file, for messages.
        px: Voxel position in file order (x, y[, z]): column, row for a picture; i, j, k for a volume.
        mm: Physical position (x, y[, z]), LPS+.
        spacing_mm: Size in mm of a pixel of ``px``.
        marked_on: What the file says about the image that the landmark was marked on.
        scored: True if the file gives a score, which a program gives to what it found.
        radius_mm: Radius in mm that holds the true position with the probability of a calibration.
        region_mm2: Region that holds the true position with the probability of a calibration: the rows of its matrix
            along (x, y[, z]), see :mod:`medpixcl.landmarks.regions`.
        px_rounding: Largest rounding error of ``px`` by its number of digits.
        mm_rounding: Largest rounding error of ``mm`` in mm by its number of digits.
        flag: Remark of a program on the landmark, such as ``unsure`` or ``corrected``; empty without one.
    """

    image: str
    landmark: str
    line: str
    px: tuple[float, ...] | None = None
    mm: tuple[float, ...] | None = None
    spacing_mm: float | None = None
    marked_on: MarkedOn | None = None
    scored: bool = False
    radius_mm: float | None = None
    region_mm2: tuple[tuple[float, ...], ...] | None = None
    px_rounding: float = 0.0
    mm_rounding: float = 0.0
    flag: str = ""


def finite_numbers(values: Sequence[Any], fewest: int = 0, most: int | None = None) -> bool:
    """True if all values of a position are finite numbers, and they are so many.

    Args:
        values: Values as a file holds them.
        fewest: Least number of them.
        most: Largest number of them; None allows any.
    """
    if len(values) < fewest or (most is not None and len(values) > most):
        return False
    return all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in values)
