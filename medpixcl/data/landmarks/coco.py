"""Read and write landmarks of pictures as COCO keypoints.

One category holds the names of all landmarks, every image has one annotation. ``keypoints`` are x (column), y (row) and
visibility: 0 for a missing landmark (x and y are then 0), 1 or 2 for one with a position; 2 is written.

COCO measures keypoints as pixel indices, 0-based, so the centre of the first pixel is (0, 0) as everywhere in this
package, and nothing is shifted; boxes and masks it measures from the corner of that pixel. (Detectron2 says the same,
and adds 0.5 to keypoints only.) The box written here holds the pixels of all keypoints.

Score, flag and physical position of every keypoint stand in fields of their own (``keypoint_scores``,
``keypoint_flags``, ``positions_lps_mm``), which readers of COCO pass over.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from medpixcl import __version__
from medpixcl._json import parsed_json
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.landmarks.row import LandmarkRow, finite_numbers
from medpixcl.data.landmarks.same_image import MarkedOn
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.text import quoted, utf8_text

WHY_NO_VOLUME = "is a volume, and COCO keypoints are 2D; write csv, json, mrk.json or sr."
_CATEGORY = 1
_SEEN = 2


def write_coco(path: str | PathLike[str], images: Sequence[ImageLandmarks]) -> None:
    """Write the landmarks of pictures; a landmark that an image does not have is written as missing.

    Raises:
        ValueError: If an image is a volume.
    """
    if volume := next((one for one in images if one.points.dims != 2), None):
        raise ValueError(f"{volume.image} {WHY_NO_VOLUME}")
    names = list(dict.fromkeys(name for one in images for name in one.points.names))
    content = {
        "info": {"description": "landmarks", "version": f"medpixcl {__version__}"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": one.image, "width": one.shape[1], "height": one.shape[0]}
            for number, one in enumerate(images, start=1)
        ],
        "annotations": [_annotation(number, one, names) for number, one in enumerate(images, start=1)],
        "categories": [
            {"id": _CATEGORY, "name": "landmarks", "supercategory": "anatomy", "keypoints": names, "skeleton": []}
        ],
    }
    write_text_atomically(path, json.dumps(content, ensure_ascii=False) + "\n")


def read_coco_rows(path: Path) -> list[LandmarkRow]:
    """Read a COCO keypoint file.

    Raises:
        ValueError: If it is not a COCO keypoint file, or an annotation does not match its category.
    """
    text = utf8_text(path)
    try:
        content = parsed_json(text)
        images = {image["id"]: (str(image["file_name"]), _size(image)) for image in content["images"]}
        names = {one["id"]: [str(name) for name in one.get("keypoints", [])] for one in content["categories"]}
        annotations = [
            (one["id"], images[one["image_id"]], names[one["category_id"]], one)
            for one in content["annotations"]
            if "keypoints" in one
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{path} is no COCO keypoint file; expected images, annotations with keypoints, and their categories."
        ) from None
    return [
        replace(row, marked_on=size)
        for number, (image, size), labels, one in annotations
        for row in _rows(path, number, image, labels, one)
    ]


def _size(image: dict[str, Any]) -> MarkedOn | None:
    """Size of an annotated image, None if the file does not say it."""
    shape = tuple(_pixels(image.get(side)) for side in ("height", "width"))
    return None if shape == (None, None) else MarkedOn(shape=shape)


def _pixels(length: Any) -> int | None:
    """Length of a side that programs write as a whole number, with a point or as text; None if it says nothing."""
    try:
        found = 0.0 if isinstance(length, bool) else float(length)
    except (TypeError, ValueError):
        return None
    return int(found) if found > 0 and found.is_integer() else None


def _annotation(number: int, one: ImageLandmarks, names: Sequence[str]) -> dict[str, Any]:
    points, place = one.points, {name: index for index, name in enumerate(one.points.names)}
    indices = [place.get(name) for name in names]
    found = [None if index is None or points.missing[index] else index for index in indices]
    px, mm = one.px.tolist(), one.lps_mm.tolist()
    xs, ys = ([px[index][axis] for index in found if index is not None] or [0.0] for axis in (0, 1))
    box = (
        [min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1]
        if any(i is not None for i in found)
        else [0.0] * 4
    )
    annotation = {
        "id": number,
        "image_id": number,
        "category_id": _CATEGORY,
        "iscrowd": 0,
        "num_keypoints": sum(index is not None for index in found),
        "keypoints": [value for index in found for value in ((0, 0, 0) if index is None else (*px[index], _SEEN))],
        "bbox": box,
        "area": box[2] * box[3],
        "positions_lps_mm": [None if index is None else mm[index] for index in found],
    }
    return annotation | _remarks(one, indices)


def _remarks(one: ImageLandmarks, indices: Sequence[int | None]) -> dict[str, Any]:
    """Scores and flags, where there are any; ``score`` is the mean, as COCO's results have it."""
    remarks: dict[str, Any] = {}
    if one.points.scores is not None:
        scores = one.points.scores.tolist()
        kept = [None if index is None or not math.isfinite(scores[index]) else scores[index] for index in indices]
        numbers = [score for score in kept if score is not None]
        remarks |= {"score": sum(numbers) / max(len(numbers), 1), "keypoint_scores": kept}
    if one.points.flags is not None:
        remarks["keypoint_flags"] = ["" if index is None else one.points.flags[index] for index in indices]
    return remarks


def _rows(path: Path, number: object, image: str, names: list[str], one: dict[str, Any]) -> list[LandmarkRow]:
    line, values = f"annotation {number}", one["keypoints"]
    mm = one.get("positions_lps_mm") or [None] * len(names)
    if not isinstance(values, list) or len(values) != 3 * len(names):
        count = len(values) if isinstance(values, list) else "no"
        raise ValueError(f"{path}: {line} has {count} numbers for {len(names)} keypoints; expected three each.")
    if not isinstance(mm, list) or len(mm) != len(names):
        raise ValueError(f"{path}: {line} has no list of {len(names)} positions_lps_mm, one for each keypoint.")
    rows = []
    for name, x, y, visible, position in zip(names, values[::3], values[1::3], values[2::3], mm, strict=True):
        if visible not in (0, 1, 2) or not finite_numbers((x, y)):
            raise ValueError(
                f"{path}: {line}: keypoint {quoted(name)} is {quoted((x, y, visible))}; expected x, y and 0, 1 or 2."
            )
        if position is not None and not (isinstance(position, list) and finite_numbers(position, 2, 3)):
            raise ValueError(f"{path}: {line}: keypoint {quoted(name)} has no position in mm of two or three numbers.")
        px = (float(x), float(y)) if visible else None
        lps = tuple(map(float, position)) if visible and position else None
        rows.append(LandmarkRow(image=image, landmark=name, line=line, px=px, mm=lps, scored="score" in one))
    return rows
