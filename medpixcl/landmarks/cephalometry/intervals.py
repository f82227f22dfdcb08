"""How far measurements may be off, from the regions that hold their landmarks."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.landmarks.cephalometry.definitions import Measurement, classifications, measurement, measurements
from medpixcl.landmarks.cephalometry.geometry import directed
from medpixcl.landmarks.cephalometry.measuring import cephalometric_values, classify, point_of
from medpixcl.landmarks.regions import covered

STEP_MM = 0.01
"""Step of the landmarks by which the slope of a measurement is computed."""
OPEN = "interval unknown: a landmark has no region, or within their regions they allow any value"
"""Remark on a measurement whose interval is infinite."""
_RANGE = {"angle": 180.0, "turn": 360.0}
"""Width in degrees of all values of an angle."""


def half_intervals(
    points: Float[Tensor, "n k 2"],
    roles: Sequence[str | None],
    regions_mm2: Float[Tensor, "n k 2 2"],
    *,
    coverage: float = 0.9,
) -> Float[Tensor, "n m"]:
    """Propagate the regions of landmarks to the measurements.

    The errors of the landmarks are taken as independent and normal. An ellipse with the matrix A that holds a share c
    of them then means the covariance ``A / (-2 log(1 - c))`` (Rayleigh, for a circle), and a measurement with the
    slopes g along the landmarks' axes has the variance ``sum g^T A g / (-2 log(1 - c))``.

    Slopes mean nothing where the landmarks of a line may lie at one place, so that it may point anywhere, and an angle
    whose interval is as wide as all angles is not known at all. Such intervals are infinite.

    Args:
        points: Landmarks in mm, shape (N, K, 2), NaN where missing.
        roles: Abbreviation of each of the K landmarks, None for others.
        regions_mm2: Ellipse around each landmark that holds its true position with the probability ``coverage``, along
            the axes of the points, see :mod:`medpixcl.landmarks.regions`, shape (N, K, 2, 2); NaN where unknown.
            Radii give :func:`medpixcl.landmarks.regions.balls`.
        coverage: That probability, and the one with which the intervals hold the true value.

    Returns:
        Half the length of the interval around each measurement, shape (N, M), in its unit; infinite where the regions
        leave the measurement open, NaN where it cannot be computed or a landmark that it needs has no region.

    Raises:
        ValueError: If ``coverage`` is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; expected a probability between 0 and 1, such as 0.9")
    regions = regions_mm2.double()
    covariance = regions / (-2 * math.log(1 - coverage))
    known = ~regions.isnan().any(dim=-1).any(dim=-1)
    variance = torch.zeros_like(cephalometric_values(points.double(), roles))
    for number, role in enumerate(roles):
        slope = _slopes(points.double(), roles, number)
        unknown = torch.where(_needed(role), torch.nan, 0.0)  # NaN spreads to what needs the landmark, and no further
        part = torch.einsum("inm,nij,jnm->nm", slope, covariance[:, number], slope)
        variance = variance + torch.where(known[:, number, None], part, unknown)
    halves = NormalDist().inv_cdf((1 + coverage) / 2) * variance.sqrt()
    return torch.where(_open(points.double(), roles, regions, halves), torch.inf, halves)


def possible_classes(values: Float[Tensor, "n m"], halves: Float[Tensor, "n m"]) -> list[list[str]]:
    """Name the classes that an interval touches, such as ``I or II``; without an interval the class of the value.

    Args:
        values: Measurements, shape (N, M).
        halves: Half the length of the interval around each, shape (N, M), infinite where the regions leave it open, NaN
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


def _open(points: Tensor, roles: Sequence[str | None], regions: Tensor, halves: Tensor) -> Bool[Tensor, "n m"]:
    """True where the regions allow any value of a measurement."""
    named = {role: number for number, role in enumerate(roles) if role is not None}
    places = {role: points[:, number] for role, number in named.items()}
    around = {role: regions[:, number].flatten(1) for role, number in named.items()}
    found = {one.name: half for one, half in zip(measurements(), halves.mT, strict=True)}
    columns = []
    for one in measurements():
        half, wide = found[one.name], _is_wide(one, found)
        known = set(one.landmarks) <= named.keys()
        lines = [_undirected(*ends, places, around) for ends in _lines(one)] if known else []
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


def _undirected(start: str, end: str, places: Mapping[str, Tensor], around: Mapping[str, Tensor]) -> Tensor:
    """True where the two ends of a line may be one place: the region of their difference holds 0."""
    away = point_of(end, places) - point_of(start, places)
    regions = [point_of(name, around).unflatten(1, (2, 2)) / len(name.split("&")) for name in (start, end)]
    thin = 1e-12 * torch.eye(2, dtype=torch.float64)  # mm^2, for regions without an inside
    return covered(away, regions[0] + regions[1] + thin) == 1
