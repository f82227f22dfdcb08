"""Read and write landmarks of 3D Slicer: ``.mrk.json`` (Markups JSON 1.0) and the older ``.fcsv``.

One file belongs to one image and bears its name. Slicer shows a PNG with 1 mm per pixel, and a JPEG or TIFF with the
size of its density tag: set the volume's spacing there before marking, or mark on a MetaImage or a DICOM volume, which
carry theirs. Of a DICOM radiograph it may take another attribute than is taken here
(:mod:`medpixcl.data.itk_spacing`); reading then says so.
"""

import csv
import json
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._json import parsed_json
from medpixcl.coordinates import flip_ras_lps
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import image_stem
from medpixcl.data.landmarks.row import LandmarkRow, finite_numbers
from medpixcl.data.landmarks.table import positions_lps_mm
from medpixcl.data.text import quoted, require_unique, shown, utf8_text
from medpixcl.landmarks.points import LandmarkSet

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_SCORE = "score "
"""Start of the description of a point that was found, not marked."""
_FRAMES = {"LPS": "LPS", "RAS": "RAS", "0": "RAS", "1": "LPS"}


def read_markups_rows(path: Path) -> list[LandmarkRow]:
    """Read the point lists of a ``.mrk.json``; points whose position is not defined are missing.

    Raises:
        ValueError: If the file is not a Markups file, holds no point list, or a point has no label or no position.
    """
    lists = read_document(path, ("Fiducial",))
    if not lists:
        raise ValueError(f"{path} holds no point list (Fiducial); expected one.")
    return [row for one in lists for row in markup_rows(path, one)]


def read_document(path: Path, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read the markups of some types from a ``.mrk.json``.

    Raises:
        ValueError: If the file is not a Markups file.
    """
    text = utf8_text(path)
    try:
        markups = parsed_json(text)["markups"]
        wanted = [one for one in markups if one["type"] in kinds]
        well_formed = all(isinstance(point, dict) for one in wanted for point in one.get("controlPoints", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        well_formed = False
    if not well_formed:
        raise ValueError(f"{path} is not a Slicer Markups file; save the markups as .mrk.json.")
    return wanted


def read_fcsv_rows(path: Path) -> list[LandmarkRow]:
    """Read a ``.fcsv``; its positions are RAS+ unless the header states LPS.

    Raises:
        ValueError: If the frame is unknown, or a row is too short, not numeric, or has no label.
    """
    frame, columns, rows = "RAS", _FCSV_COLUMNS.split(","), []
    for number, line in enumerate(utf8_text(path).splitlines(), start=1):
        key, _, value = line.lstrip("# ").partition("=")
        if line.startswith("#"):
            if key.strip() == "CoordinateSystem":
                frame = _frame(path, value.strip())
            elif key.strip() == "columns":
                columns = [name.strip() for name in value.split(",")]
                require_unique(path, columns)
        elif line.strip():
            cells = _cells(path, number, line, columns)
            position = [cells.get(axis) for axis in "xyz"]
            rows.append(_row(path, f"line {number}", cells.get("label"), position, frame))
    return rows


def _cells(path: Path, number: int, line: str, columns: list[str]) -> dict[str, str]:
    try:
        found = next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(f"{path}: line {number} cannot be read as CSV ({error}).") from None
    if len(found) > len(columns):
        raise ValueError(
            f"{path}: line {number} has {len(found)} cells for {len(columns)} columns; is a comma a decimal point?"
        )
    return dict(zip(columns, found, strict=False))


def write_markups(path: str | PathLike[str], points: LandmarkSet, affine: Float[Tensor, "4 4"]) -> None:
    """Write one image's landmarks as a Slicer point list, LPS+, mm.

    A missing landmark keeps its place with an undefined position; score and flag go into the description; points of a
    2D image lie at z = 0.

    Args:
        path: File to write, named after the image and ending in ``.mrk.json``.
        points: Landmarks in voxels of the image.
        affine: Matrix from voxels to mm, RAS+, (4, 4).
    """
    flat = flat_positions(points, affine)
    controls = [
        control_point(index + 1, name, None if points.missing[index] else flat[index].tolist(), _remarks(points, index))
        for index, name in enumerate(points.names)
    ]
    write_document(path, [markup("Fiducial", controls)])


def flat_positions(points: LandmarkSet, affine: Float[Tensor, "4 4"]) -> Float[Tensor, "k 3"]:
    """Compute positions in mm, LPS+, with three coordinates; points of a 2D image lie at z = 0."""
    lps = positions_lps_mm(points, affine)
    return torch.cat([lps, lps.new_zeros(len(lps), 3 - points.dims)], dim=1)


def markup(kind: str, controls: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Build one markup of a document: a point list (``Fiducial``), a ``Line`` or an ``Angle``, in mm, LPS+."""
    return {
        "type": kind,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(controls),
        "controlPoints": controls,
        **more,
    }


def write_document(path: str | PathLike[str], markups: list[dict[str, Any]]) -> None:
    """Write markups as one ``.mrk.json``."""
    write_text_atomically(path, json.dumps({"@schema": _SCHEMA, "markups": markups}, indent=2) + "\n")


def _remarks(points: LandmarkSet, index: int) -> str:
    remarks = [] if points.scores is None else [f"{_SCORE}{float(points.scores[index]):.4f}"]
    remarks += [points.flags[index]] if points.flags and points.flags[index] else []
    return "; ".join(remarks)


def control_point(number: int, label: str, position: list[float] | None, description: str = "") -> dict[str, Any]:
    """Build one control point of a markup; without a position its status is undefined."""
    missing = position is None
    return {
        "id": str(number),
        "label": label,
        "description": description,
        "associatedNodeID": "",
        **({} if position is None else {"position": [round(value, 6) for value in position]}),
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "undefined" if missing else "defined",
    }


def markup_rows(path: Path, one: dict[str, Any]) -> list[LandmarkRow]:
    """The points of one markup.

    Raises:
        ValueError: If frame or unit is unknown, or a point has no label or no position.
    """
    frame = _frame(path, str(one.get("coordinateSystem", "LPS")))
    unit = one.get("coordinateUnits", "mm")
    if unit not in ("mm", ["mm", "UCUM", "millimeter"]):
        raise ValueError(f"{path} has positions in {quoted(unit)}; expected mm.")
    rows = []
    for number, point in enumerate(one.get("controlPoints", []), start=1):
        position = point.get("position") if point.get("positionStatus", "defined") == "defined" else None
        if position is not None and not (isinstance(position, list) and finite_numbers(position)):
            raise ValueError(f"{path}: point {number} lies at {quoted(position)}; expected three numbers.")
        row = _row(path, f"point {number}", point.get("label"), position, frame)
        remarks = str(point.get("description", "")).split("; ")
        scored = remarks[0].startswith(_SCORE)
        rows.append(replace(row, scored=scored, flag=remarks[-1] if scored and len(remarks) > 1 else ""))
    return rows


def _frame(path: Path, name: str) -> str:
    if name not in _FRAMES:
        raise ValueError(f"{path} has positions in the frame {quoted(name)}; expected LPS or RAS.")
    return _FRAMES[name]


def _row(path: Path, line: str, label: object, position: list[Any] | None, frame: str) -> LandmarkRow:
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{path}: {line} has no label; name the landmark.")
    lps = None
    if position is not None:
        try:
            values = torch.tensor([[float(value) for value in position]], dtype=torch.float64)
        except (TypeError, ValueError):
            values = torch.full((1, 1), torch.nan)
        if values.shape != (1, 3) or not values.isfinite().all():
            raise ValueError(f"{path}: {line} ({shown(label)}) lies at {quoted(position)}; expected three numbers.")
        lps = tuple((flip_ras_lps(values) if frame == "RAS" else values)[0].tolist())
    return LandmarkRow(image=image_stem(path.name), landmark=label.strip(), line=line, mm=lps)
