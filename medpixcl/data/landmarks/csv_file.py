"""Read and write landmarks as CSV, one row per image and landmark.

Columns: ``image`` (or ``volume``), ``landmark``, and pixels ``x_px,y_px[,z_px]`` or millimetres ``x_mm,y_mm[,z_mm]``,
or both; ``spacing_mm``, ``score``, ``flag`` and ``radius_mm`` are optional, and so are the semi-axes of a region, each
with its length ``axis1_mm`` and direction ``axis1_x,axis1_y[,axis1_z]``. Pixels count from 0 at the centre of the first
one: x is the column and y the row of a picture; x, y, z are i, j, k of a volume. Millimetres are LPS+. Empty cells are
a missing landmark. Columns are separated by commas, or by semicolons or tabs, which go with decimal commas. An
apostrophe before a formula is no part of a name, see :mod:`medpixcl.data.tables`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.data.landmarks.row import LandmarkRow
from medpixcl.data.landmarks.table import positions_lps_mm, positions_px
from medpixcl.data.tables import SEPARATORS, Table, decimal_point, read_table, write_csv
from medpixcl.data.text import quoted, shown_names
from medpixcl.landmarks.points import LandmarkSet

_NUMERIC = (*(f"{axis}_{unit}" for unit in ("px", "mm") for axis in "xyz"), "spacing_mm", "score", "radius_mm")
_REGION = re.compile(r"axis\d+_(mm|x|y|z)")
_KNOWN = ("image", "volume", "landmark", *_NUMERIC)
DIRECTION_TOLERANCE = 0.01
"""How far the directions of a region's axes may be from unit length and from right angles: files round them."""


def read_csv_rows(path: Path) -> list[LandmarkRow]:
    """Read the rows of a landmark CSV.

    Raises:
        ValueError: If columns are missing or a cell is not a number; the message names the line.
    """
    table = read_table(path, _KNOWN)
    image, axes = _columns(path, table.columns, table.separator)
    records = _numbered(path, table)
    return [_row(path, record, line, image, axes) for line, record in records if any(record.values())]


def landmark_rows(image: str, points: LandmarkSet, affine: Float[Tensor, "4 4"]) -> list[dict[str, str]]:
    """Format one image's landmarks as rows for :func:`write_landmarks_csv`.

    Args:
        image: Name of the image in the rows: its path relative to the CSV.
        points: Landmarks in voxels of the image.
        affine: Matrix from voxels to mm, RAS+, (4, 4).
    """
    positions = {"px": positions_px(points), "mm": positions_lps_mm(points, affine)}
    rows = []
    for index, name in enumerate(points.names):
        row = {"image": image, "landmark": name}
        for unit, values in positions.items():
            cells = ["" if points.missing[index] else f"{value:.4f}" for value in values[index].tolist()]
            row |= {f"{axis}_{unit}": cell for axis, cell in zip("xyz", cells, strict=False)}
        row["score"] = "" if points.scores is None else f"{float(points.scores[index]):.4f}"
        row["flag"] = "" if points.flags is None else points.flags[index]
        rows.append(row)
    return rows


def write_landmarks_csv(path: str | PathLike[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write the rows of :func:`landmark_rows`, of images of one dimension, under one header.

    Raises:
        ValueError: If there is no row, or 2D and 3D are mixed.
    """
    if not rows:
        raise ValueError(f"{path}: no landmarks to write.")
    header = list(rows[0])
    if any(list(row) != header for row in rows):
        raise ValueError(f"{path}: rows of 2D and 3D images in one table; write one table for each.")
    write_csv(path, [header, *(list(row.values()) for row in rows)])


def _columns(path: Path, columns: Sequence[str], separator: str) -> tuple[str, dict[str, list[str]]]:
    """Name of the image column, and the coordinate columns of each unit."""
    image = next((name for name in ("image", "volume") if name in columns), None)
    axes = {
        unit: [f"{axis}_{unit}" for axis in "xyz" if f"{axis}_{unit}" in columns]
        for unit in ("px", "mm")
        if {f"x_{unit}", f"y_{unit}"} <= set(columns)
    }
    if image is None or "landmark" not in columns or not axes:
        raise ValueError(
            f"{path} has the columns {shown_names(columns)}, separated by {SEPARATORS[separator]}; expected "
            "image (or volume), landmark, and x_px, y_px[, z_px] or x_mm, y_mm[, z_mm], separated by commas, "
            "semicolons or tabs."
        )
    axis_columns = {name for name in columns if _REGION.fullmatch(name)}
    expected = {name for row in _region_columns(axes) for name in row}
    if axis_columns not in (set(), expected):
        raise ValueError(
            f"{path} has the columns {shown_names(sorted(axis_columns))} of regions; expected a length and a "
            f"direction for each axis of the positions in mm: {', '.join(sorted(expected)) or 'there are none'}."
        )
    return image, axes


def _region_columns(axes: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Columns of the length and the direction of each semi-axis, with positions in mm of so many axes."""
    letters = [name[0] for name in axes.get("mm", ())]
    return [[f"axis{number}_{what}" for what in ("mm", *letters)] for number in range(1, len(letters) + 1)]


def _numbered(path: Path, table: Table) -> Iterator[tuple[str, dict[str, str]]]:
    numeric = [name for name in table.columns if name in _NUMERIC or _REGION.fullmatch(name)]
    for number, cells in table.rows:
        record = cells | {name: decimal_point(cells[name], table.separator) for name in numeric}
        _check_remarks(path, f"line {number}", record)
        yield f"line {number}", record


def _check_remarks(path: Path, line: str, cells: Mapping[str, str]) -> None:
    """Refuse a score that is none and a flag that is a number: decimal commas move numbers into these cells."""
    score, flag = _number(cells.get("score", "")), _number(cells.get("flag", ""))
    if (score is not None and not 0 <= score <= 1) or flag is not None:
        shown = ", ".join(f"{name}={quoted(cells[name])}" for name in ("score", "flag") if cells.get(name))
        raise ValueError(
            f"{path}: {line}: {shown}; expected a score from 0 to 1 and a word as flag; is a comma a decimal point?"
        )


def _number(cell: str) -> float | None:
    """The number that a cell holds; None for a word or an empty cell."""
    return float(cell) if re.fullmatch(r"[-+]?\d+\.?\d*", cell) else None


def _row(path: Path, record: dict[str, str], line: str, image: str, axes: dict[str, list[str]]) -> LandmarkRow:
    if not record[image] or not record["landmark"]:
        raise ValueError(f"{path}: {line}: no {image if not record[image] else 'landmark'} named; fill the cell.")
    spacing = _numbers(path, record, line, ["spacing_mm"]) if record.get("spacing_mm") else None
    if spacing is not None and spacing[0] <= 0:
        raise ValueError(f"{path}: {line}: spacing_mm is {spacing[0]:g}; expected a positive size in mm.")
    radius = _numbers(path, record, line, ["radius_mm"]) if record.get("radius_mm") else None
    if radius is not None and radius[0] < 0:
        raise ValueError(f"{path}: {line}: radius_mm is {radius[0]:g}; expected a radius in mm of 0 or more.")
    return LandmarkRow(
        image=record[image].replace("\\", "/"),
        landmark=record["landmark"],
        line=line,
        px=_numbers(path, record, line, axes.get("px", [])),
        mm=_numbers(path, record, line, axes.get("mm", [])),
        spacing_mm=None if spacing is None else spacing[0],
        scored=bool(record.get("score")),
        px_rounding=_rounding(record, axes.get("px", [])),
        mm_rounding=_rounding(record, axes.get("mm", [])),
        radius_mm=None if radius is None else radius[0],
        region_mm2=_region(path, record, line, _region_columns(axes)),
        flag=record.get("flag") or "",
    )


def _region(
    path: Path, record: dict[str, str], line: str, columns: Sequence[Sequence[str]]
) -> tuple[tuple[float, ...], ...] | None:
    """Matrix of a region from its semi-axes; None if all of their cells are empty."""
    names = [name for row in columns for name in row if name in record]
    if not names or not any(record[name] for name in names):
        return None
    axes = torch.tensor([_numbers(path, record, line, row) or [torch.nan] * len(row) for row in columns]).double()
    lengths, directions = axes[:, 0], axes[:, 1:]
    turned = (directions @ directions.T - torch.eye(len(axes))).abs().amax()
    if not bool((lengths >= 0).all() & (turned <= DIRECTION_TOLERANCE)):
        shown = ", ".join(f"{name}={quoted(record[name])}" for name in names)
        raise ValueError(
            f"{path}: {line}: {shown}; expected lengths of semi-axes in mm of 0 or more, and directions of length 1 at "
            "right angles to each other."
        )
    matrix = directions.T @ torch.diag(lengths.square()) @ directions
    return tuple(tuple(row) for row in matrix.tolist())


def _numbers(path: Path, record: dict[str, str], line: str, columns: Sequence[str]) -> tuple[float, ...] | None:
    """The cells as numbers, None if all are empty; an empty z of a 2D image is left out."""
    cells = {name: record[name] for name in columns if record[name] or not name.startswith("z_")}
    if not any(cells.values()):
        return None
    try:
        values = tuple(float(cell.replace("_", "?")) for cell in cells.values())  # Python reads 1_0 as 10
    except ValueError:
        values = (float("nan"),)
    if not all(abs(value) < float("inf") for value in values):
        shown = ", ".join(f"{name}={quoted(cell)}" for name, cell in cells.items())
        raise ValueError(f"{path}: {line}: {shown}; expected numbers, or all empty for a missing landmark.")
    return values


def _rounding(record: Mapping[str, str], columns: Sequence[str]) -> float:
    """Half a unit of the last digit of the number with the fewest decimals; 0 without a number."""
    exponents = [min(int(Decimal(record[name]).as_tuple().exponent), 0) for name in columns if record[name]]
    return 0.5 * 10.0 ** max(exponents) if exponents else 0.0
