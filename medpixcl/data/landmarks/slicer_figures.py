"""Read and write lines and angles between landmarks as markups of 3D Slicer: ``.mrk.json`` of the types Line and Angle.

Slicer shows the length or the angle beside the figure and measures again when a person moves a point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.data.landmarks.row import LandmarkRow
from medpixcl.data.landmarks.slicer import (
    control_point,
    flat_positions,
    markup,
    markup_rows,
    read_document,
    write_document,
)
from medpixcl.data.text import quoted
from medpixcl.landmarks.points import LandmarkSet

_COUNTS = {"Line": 2, "Angle": 3}


@dataclass(frozen=True)
class Figure:
    """A line between two landmarks, or an angle at the second of three.

    Attributes:
        name: Name of the figure, such as ``SNA``.
        landmarks: Names of two or three landmarks; the vertex of an angle is the second one.

    Raises:
        ValueError: If there are not two or three landmarks.
    """

    name: str
    landmarks: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.landmarks) not in _COUNTS.values():
            raise ValueError(
                f"figure {self.name!r} has {len(self.landmarks)} landmarks; expected 2 (line) or 3 (angle)."
            )

    @property
    def kind(self) -> str:
        """``Line`` or ``Angle``."""
        return "Line" if len(self.landmarks) == 2 else "Angle"


def write_figures(
    path: str | PathLike[str], points: LandmarkSet, affine: Float[Tensor, "4 4"], figures: Sequence[Figure]
) -> None:
    """Write lines (with their length in mm) and angles (in degrees) of one image's landmarks, LPS+.

    A missing landmark becomes a point without position, and figures that need it have no measurement.

    Args:
        path: File to write, named after the image and ending in ``.mrk.json``.
        points: Landmarks in voxels of the image.
        affine: Matrix from voxels to mm, RAS+, (4, 4).
        figures: Lines and angles to draw, at least one.

    Raises:
        ValueError: If there is no figure, or a figure names a landmark that is not among the points.
    """
    if not figures:
        raise ValueError(f"{path}: no line or angle to write.")
    unknown = sorted({name for figure in figures for name in figure.landmarks} - set(points.names))
    if unknown:
        raise ValueError(
            f"{path}: the figures need the landmarks {', '.join(unknown)}, which are not among the points."
        )
    places = dict(zip(points.names, flat_positions(points, affine), strict=True))
    write_document(
        path, [_markup(figure, torch.stack([places[name] for name in figure.landmarks])) for figure in figures]
    )


def read_figures(path: str | PathLike[str]) -> dict[str, list[LandmarkRow]]:
    """Read the lines and angles of a ``.mrk.json``: name to points in order (mm, LPS+; undefined ones are missing).

    Raises:
        ValueError: If the file is not a Markups file, holds no line or angle, two figures share a name, or a figure has
            too few points.
    """
    path = Path(path)
    found: dict[str, list[LandmarkRow]] = {}
    for number, one in enumerate(read_document(path, tuple(_COUNTS)), start=1):
        name = str(one.get("name") or f"{one['type']} {number}")
        rows = markup_rows(path, one)
        if len(rows) != _COUNTS[one["type"]]:
            raise ValueError(
                f"{path}: {one['type']} {quoted(name)} has {len(rows)} points; expected {_COUNTS[one['type']]}."
            )
        if name in found:
            raise ValueError(f"{path} holds two figures named {quoted(name)}; give each its own name.")
        found[name] = rows
    if not found:
        raise ValueError(f"{path} holds no Line and no Angle; expected one.")
    return found


def _markup(figure: Figure, places: Float[Tensor, "n 3"]) -> dict[str, Any]:
    """A line's length, or the angle at its second point, goes with it."""
    controls = [
        control_point(number, name, None if place.isnan().any() else place.tolist())
        for number, (name, place) in enumerate(zip(figure.landmarks, places, strict=True), start=1)
    ]
    value = _length(places) if figure.kind == "Line" else _degrees(places)
    what, unit, shown = ("length", "mm", "%-#4.4g%s") if figure.kind == "Line" else ("angle", "deg", "%3.1f%s")
    measured = {"name": what, "enabled": True, "units": unit, "printFormat": shown}
    return markup(
        figure.kind,
        controls,
        name=figure.name,
        measurements=[measured if value is None else {**measured, "value": value}],
    )


def _length(places: Float[Tensor, "2 3"]) -> float | None:
    length = float(torch.linalg.vector_norm(places[1] - places[0]))
    return None if length != length else length


def _degrees(places: Float[Tensor, "3 3"]) -> float | None:
    """Angle at the second point; by atan2, which stays exact near 0 and 180 degrees."""
    first, second = places[0] - places[1], places[2] - places[1]
    across = torch.linalg.vector_norm(torch.linalg.cross(first, second))
    angle = float(torch.rad2deg(torch.atan2(across, first @ second)))
    return None if angle != angle else angle
