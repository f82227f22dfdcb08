"""How far measurements may be off, from how far their landmarks may be off."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.landmarks.cephalometry.definitions import classifications, measurements
from medpixcl.landmarks.cephalometry.measuring import cephalometric_values, classify

STEP_MM = 0.01
"""Step of the landmarks by which the slope of a measurement is computed."""


def half_intervals(
    points: Float[Tensor, "n k 2"],
    roles: Sequence[str | None],
    radii_mm: Float[Tensor, "n k"],
    *,
    coverage: float = 0.9,
) -> Float[Tensor, "n m"]:
    """Propagate the error radii of landmarks to the measurements.

    The errors of the landmarks are taken as independent and normal, alike in all directions. A radius r that holds a
    share c of them then means a standard deviation of ``r / sqrt(-2 log(1 - c))`` along an axis (Rayleigh), and a
    measurement with the slopes g along the landmarks' axes has the variance ``sum g^2 sd^2``.

    Args:
        points: Landmarks in mm, shape (N, K, 2), NaN where missing.
        roles: Abbreviation of each of the K landmarks, None for others.
        radii_mm: Radius around each landmark that holds its true position with the probability ``coverage``, shape (N,
            K); NaN where unknown.
        coverage: That probability, and the one with which the intervals hold the true value.

    Returns:
        Half the length of the interval around each measurement, shape (N, M), in its unit; NaN where the measurement
        cannot be computed or a landmark that it needs has no radius.

    Raises:
        ValueError: If ``coverage`` is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; expected a probability between 0 and 1, such as 0.9")
    deviation = radii_mm.double() / math.sqrt(-2 * math.log(1 - coverage))
    variance = torch.zeros_like(cephalometric_values(points.double(), roles))
    for number, role in enumerate(roles):
        slope = _slopes(points.double(), roles, number)
        unknown = torch.where(_needed(role), torch.nan, 0.0)  # NaN spreads to what needs the landmark, and no further
        part = slope.square().sum(dim=0) * deviation[:, number, None].square()
        variance = variance + torch.where(deviation[:, number, None].isnan(), unknown, part)
    return NormalDist().inv_cdf((1 + coverage) / 2) * variance.sqrt()


def possible_classes(values: Float[Tensor, "n m"], halves: Float[Tensor, "n m"]) -> list[list[str]]:
    """Name the classes that an interval touches, such as ``I or II``; without an interval the class of the value.

    Args:
        values: Measurements, shape (N, M).
        halves: Half the length of the interval around each, shape (N, M), NaN where unknown.

    Returns:
        A text for each image and classification; empty where the measurement cannot be computed.
    """
    least, greatest = (classify(values + sign * halves.nan_to_num(0)).tolist() for sign in (-1, 1))
    return [
        ["" if first < 0 else " or ".join(one.labels[first : last + 1]) for one, first, last in zip(*row, strict=True)]
        for row in ((classifications(), low, high) for low, high in zip(least, greatest, strict=True))
    ]


def _slopes(points: Float[Tensor, "n k 2"], roles: Sequence[str | None], number: int) -> Float[Tensor, "2 n m"]:
    """Change of every measurement per mm that one landmark moves along x and along y."""
    slopes = []
    for axis in range(2):
        step = torch.zeros_like(points)
        step[:, number, axis] = STEP_MM
        there, back = (cephalometric_values(points + sign * step, roles) for sign in (1, -1))
        slopes.append((there - back) / (2 * STEP_MM))
    return torch.stack(slopes)


def _needed(role: str | None) -> Bool[Tensor, " m"]:
    """True for the measurements that a landmark is needed for."""
    return torch.tensor([role in one.landmarks for one in measurements()])
