"""Read and write landmarks of many images as plain JSON: the content of the CSV with full precision, for programs.

``{"format": "medpixcl landmarks", "version": 1, "frame": "LPS", "unit": "mm", "images": [{"image": ..., "landmarks":
[{"landmark": ..., "px": [x, y], "mm": [x, y], "score": ..., "flag": ...}]}]}``. Order, origin and frame of ``px`` and
``mm`` are those of :mod:`medpixcl.data.landmarks.csv_file`; both are ``null`` for a missing landmark.
"""

import json
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from medpixcl._json import parsed_json
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.landmarks.row import LandmarkRow, finite_numbers
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.text import utf8_text

FORMAT = "medpixcl landmarks"
_HEADER = {"format": FORMAT, "version": 1, "frame": "LPS", "unit": "mm"}


def write_landmarks_json(path: str | PathLike[str], images: Sequence[ImageLandmarks]) -> None:
    """Write the landmarks of images, 2D and 3D."""
    content = {**_HEADER, "images": [{"image": one.image, "landmarks": _records(one)} for one in images]}
    write_text_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json_rows(path: Path) -> list[LandmarkRow]:
    """Read what :func:`write_landmarks_json` writes.

    Raises:
        ValueError: If the file is of another kind, or a landmark does not have the fields described above.
    """
    text = utf8_text(path)
    try:
        content = parsed_json(text)
        if any(content[key] != value for key, value in _HEADER.items()):
            raise ValueError
        pairs = [(str(one["image"]), record) for one in content["images"] for record in one["landmarks"]]
        return [_row(image, record, f"landmark {number}") for number, (image, record) in enumerate(pairs, start=1)]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{path} is no landmark file of medpixcl, or is damaged: see docs/guide/landmark_files.md for its fields."
        ) from None


def _records(one: ImageLandmarks) -> list[dict[str, Any]]:
    points, records = one.points, []
    for index, name in enumerate(points.names):
        missing = bool(points.missing[index])
        record: dict[str, Any] = {
            "landmark": name,
            "px": None if missing else one.px[index].tolist(),
            "mm": None if missing else one.lps_mm[index].tolist(),
        }
        if points.scores is not None:
            score = float(points.scores[index])
            record["score"] = score if math.isfinite(score) else None
        if points.flags is not None:
            record["flag"] = points.flags[index]
        if one.extras:
            record |= {column: _number(cell) for column, cell in one.extras[index].items()}
        records.append(record)
    return records


def _number(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def _row(image: str, record: dict[str, Any], line: str) -> LandmarkRow:
    px, mm = (None if record[unit] is None else tuple(record[unit]) for unit in ("px", "mm"))
    radius = record.get("radius_mm")
    if not all(finite_numbers(position, 2, 3) for position in (px, mm) if position is not None):
        raise ValueError
    if radius is not None and not (finite_numbers([radius]) and radius >= 0):
        raise ValueError
    return LandmarkRow(
        image=image,
        landmark=str(record["landmark"]),
        line=line,
        px=px and tuple(map(float, px)),
        mm=mm and tuple(map(float, mm)),
        scored=record.get("score") is not None,
        radius_mm=None if radius is None else float(radius),
        flag=str(record.get("flag") or ""),
    )
