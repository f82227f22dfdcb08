"""Plane geometry of the face: angles, lengths, and signed distances that do not depend on where the face looks.

Positions are in mm, (N, 2), in any frame: x right and y down, row and column, LPS or RAS. ``facing`` (N,) is 1 where a
quarter turn from the first axis to the second leads from ahead (where the face looks) to below, -1 where it leads to
above. All turns are counted from ahead by way of below to behind, which is clockwise on a face that looks right.
NaN in gives NaN out, and so do lines without length.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Points = Sequence[Float[Tensor, "n 2"]]
PerCephalogram = Float[Tensor, " n"]
OUTLINE = ("S", "N", "ANS", "Pog", "Me", "Go", "Ar", "Po")
"""Landmarks around the face, clockwise on a face that looks right."""
_LEAST_AREA = 0.05
"""Least area of an outline as a share of the squared largest distance; a smaller one is too close to a line."""


def facing_of(outline: Float[Tensor, "n k 2"]) -> PerCephalogram:
    """Find where each face looks from the sign of the area within its outline: 1, -1, or NaN if undetermined.

    Args:
        outline: Landmarks in the order of :data:`OUTLINE`; NaN landmarks are left out.
    """
    facing = outline.new_empty(len(outline))
    for number, points in enumerate(outline):
        facing[number] = _facing(points[~points.isnan().any(dim=1)])
    return facing


def _facing(points: Float[Tensor, "k 2"]) -> Float[Tensor, ""]:
    unknown = points.new_tensor(torch.nan)
    if len(points) < 3:
        return unknown
    area = cross(points, points.roll(-1, dims=0)).sum() / 2
    extent = torch.pdist(points).max()
    return area.sign() if bool(area.abs() > _LEAST_AREA * extent.square()) else unknown


def cross(first: Float[Tensor, "*b 2"], second: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    """Cross product in the plane."""
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def direction(points: Points) -> Float[Tensor, "n 2"]:
    """Unit vector from the first point to the second; for several pairs, their bisector."""
    units = [_unit(end - start) for start, end in zip(points[::2], points[1::2], strict=True)]
    return _unit(torch.stack(units).sum(dim=0))


def angle(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Angle at the second of three points, 0 to 180 degrees."""
    corner = points[1]
    first, second = _unit(points[0] - corner), _unit(points[2] - corner)
    return torch.rad2deg(torch.atan2(cross(first, second).abs(), (first * second).sum(dim=-1)))


def turn(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Turn from the direction of the first two points to that of the last two, -180 to 180 degrees."""
    first, second = direction(points[:2]), direction(points[2:])
    return torch.rad2deg(torch.atan2(cross(first, second) * facing, (first * second).sum(dim=-1)))


def length(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Distance between two points in mm."""
    return torch.linalg.vector_norm(points[1] - points[0], dim=-1)


def ratio(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Distance between the first two points in percent of that between the last two."""
    whole = length(points[2:], facing)
    return 100 * length(points[:2], facing) / whole.where(whole > 0, torch.nan)


def ahead(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Distance in mm of the first point from the line down from the second to the third, positive ahead of it."""
    return -facing * cross(direction(points[1:]), points[0] - points[1])


def along(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Distance in mm of the second point beyond the first along a :func:`direction` given by the other points."""
    return ((points[1] - points[0]) * direction(points[2:])).sum(dim=-1)


def below(points: Points, facing: PerCephalogram) -> PerCephalogram:
    """Distance in mm of the second point below the first, perpendicular to a direction given by the other points."""
    return facing * cross(direction(points[2:]), points[1] - points[0])


KINDS: Mapping[str, Callable[[Points, PerCephalogram], PerCephalogram]] = {
    "angle": angle,
    "turn": turn,
    "length": length,
    "ratio": ratio,
    "ahead": ahead,
    "along": along,
    "below": below,
}


def directed(kind: str, points: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of points between which a kind of computation takes a direction, or a length to divide by.

    Example:
        >>> directed("angle", ["S", "N", "A"])
        [('N', 'S'), ('N', 'A')]
    """
    if kind == "angle":
        return [(points[1], points[0]), (points[1], points[2])]
    ends = {"turn": points, "ahead": points[1:], "ratio": points[2:], "along": points[2:], "below": points[2:]}
    known = ends.get(kind, ())
    return list(zip(known[::2], known[1::2], strict=True))


SIDED = ("turn", "ahead", "below")
"""Kinds whose sign depends on where the face looks."""


def _unit(vector: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
