"""How far measurements may be off, from how far their landmarks may be off."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.landmarks.cephalometry.definitions import Measurement, classifications, measurement, measurements
from medpixcl.landmarks.cephalometry.geometry import directed
from medpixcl.landmarks.cephalometry.measuring import cephalometric_values, classify, point_of

STEP_MM = 0.01
"""Step of the landmarks by which the slope of a measurement is computed."""
OPEN = "interval unknown: within their radii, its landmarks allow any value"
"""Remark on a measurement whose interval is infinite."""
_RANGE = {"angle": 180.0, "turn": 360.0}
"""Width in degrees of all values of an angle."""


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

    Slopes mean nothing where the landmarks of a line may lie at one place, so that it may point anywhere, and an angle
    whose interval is as wide as all angles is not known at all. Such intervals are infinite.

    Args:
        points: Landmarks in mm, shape (N, K, 2), NaN where missing.
        roles: Abbreviation of each of the K landmarks, None for others.
        radii_mm: Radius around each landmark that holds its true position with the probability ``coverage``, shape (N,
            K); NaN where unknown.
        coverage: That probability, and the one with which the intervals hold the true value.

    Returns:
        Half the length of the interval around each measurement, shape (N, M), in its unit; infinite where the radii
        leave the measurement open, NaN where it cannot be computed or a landmark that it needs has no radius.

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
    halves = NormalDist().inv_cdf((1 + coverage) / 2) * variance.sqrt()
    return torch.where(_open(points.double(), roles, radii_mm.double(), halves), torch.inf, halves)


def possible_classes(values: Float[Tensor, "n m"], halves: Float[Tensor, "n m"]) -> list[list[str]]:
    """Name the classes that an interval touches, such as ``I or II``; without an interval the class of the value.

    Args:
        values: Measurements, shape (N, M).
        halves: Half the length of the interval around each, shape (N, M), infinite where the radii leave it open, NaN
            where there are none.

    Returns:
        A text for each image and classification; empty where the measurement cannot be computed.
    """
    known = halves.nan_to_num(0, posinf=torch.inf)
    least, greatest = (classify(values + sign * known).tolist() for sign in (-1, 1))
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


def _open(points: Tensor, roles: Sequence[str | None], radii: Tensor, halves: Tensor) -> Bool[Tensor, "n m"]:
    """True where the radii allow any value of a measurement."""
    named = {role: number for number, role in enumerate(roles) if role is not None}
    places = {role: points[:, number] for role, number in named.items()}
    squares = {role: radii[:, number, None].square() for role, number in named.items()}
    found = {one.name: half for one, half in zip(measurements(), halves.mT, strict=True)}
    columns = []
    for one in measurements():
        half, wide = found[one.name], _is_wide(one, found)
        known = set(one.landmarks) <= named.keys()
        lines = [_undirected(*ends, places, squares) for ends in _lines(one)] if known else []
        columns.append(torch.stack([wide, *lines]).any(dim=0) & ~half.isnan())
    return torch.stack(columns, dim=1)


def _is_wide(one: Measurement, halves: Mapping[str, Tensor]) -> Bool[Tensor, " n"]:
    """True where the interval of an angle, or of one that is added, is as wide as all its values."""
    wide = 2 * halves[one.name] >= _RANGE.get(one.kind, torch.inf)
    return torch.stack([wide, *(_is_wide(measurement(name), halves) for name in one.terms)]).any(dim=0)


def _lines(one: Measurement) -> list[tuple[str, str]]:
    """Ends of the lines whose direction a measurement needs."""
    terms = [line for name in one.terms for line in _lines(measurement(name))]
    return [*directed(one.kind, one.points), *terms]


def _undirected(start: str, end: str, places: Mapping[str, Tensor], squares: Mapping[str, Tensor]) -> Tensor:
    """True where the two ends of a line may be one place: the region of their difference holds 0."""
    away = torch.linalg.vector_norm(point_of(end, places) - point_of(start, places), dim=1)
    square = sum(point_of(name, squares)[:, 0] / len(name.split("&")) for name in (start, end))
    return away.square() <= square
