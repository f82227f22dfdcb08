"""The reading habit of a clinic as a small JSON file: landmarks, offsets, and what had found the positions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medpixcl._json import parsed_json
from medpixcl._typing import AnyPath
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.paths import checked_file, checked_path
from medpixcl.data.text import utf8_text
from medpixcl.landmarks.geometry import spread
from medpixcl.landmarks.habit import Habit
from medpixcl.limits import regular_file
from medpixcl.matching.annotated_image import AnnotatedImage, templates_digest

FORMAT = "medpixcl reading habit"
_TEXT = {"type": "string"}
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
_FIELDS = ["landmark", "offset_mm", "deviation_mm", "corrections", "reference_mm"]
_RECORD = {
    "type": "object",
    "additionalProperties": False,
    "required": _FIELDS,
    "properties": {
        "landmark": _TEXT,
        "offset_mm": _NUMBERS,
        "deviation_mm": {"type": "number", "minimum": 0},
        "corrections": {"type": "integer", "minimum": 0},
        "reference_mm": {"anyOf": [_NUMBERS, {"type": "null"}]},
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["format", "version", "frame", "name", "images", "found_by", "landmarks"],
    "properties": {
        "format": {"const": FORMAT},
        "version": {"const": 1},
        "frame": {"const": "LPS"},
        "name": _TEXT,
        "images": {"type": "integer", "minimum": 1},
        "found_by": {"type": "object", "additionalProperties": _TEXT},
        "landmarks": {"type": "array", "minItems": 1, "items": _RECORD},
    },
}
"""JSON schema of the file."""


@dataclass(frozen=True)
class ReadingHabit:
    """A habit with its name and origin.

    Attributes:
        name: Name for people, such as that of the clinic.
        habit: Offsets of the landmarks.
        images: Number of corrected images that it was learnt from.
        found_by: What had found the positions that were corrected, see :func:`found_by`.
    """

    name: str
    habit: Habit
    images: int
    found_by: Mapping[str, str]

    def write(self, path: AnyPath) -> None:
        """Write the habit as JSON, for :meth:`read`; it names no image.

        Raises:
            ValueError: If ``path`` names no file.
        """
        habit = self.habit
        rows = zip(
            habit.names,
            habit.offsets_mm.tolist(),
            habit.deviations_mm.tolist(),
            habit.corrections,
            [None if place.isnan().any() else place.tolist() for place in habit.reference_mm],
            strict=True,
        )
        content = {
            "format": FORMAT,
            "version": 1,
            "frame": "LPS",
            "name": self.name,
            "images": self.images,
            "found_by": dict(self.found_by),
            "landmarks": [dict(zip(_FIELDS, row, strict=True)) for row in rows],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_text_atomically(checked_file(path, "the file of the reading habit"), text + "\n")

    @classmethod
    def read(cls, path: AnyPath) -> "ReadingHabit":
        """Read a habit that :meth:`write` wrote.

        Raises:
            ValueError: If there is no such file, or it holds no habit; the message names the file and the place.
        """
        file = regular_file(checked_path(path, "the file of the reading habit"))
        if not file.is_file():
            raise ValueError(f"there is no reading habit at {file}; give the habit.json of a run with corrections")
        content = _checked(file)
        rows = {key: [one[key] for one in content["landmarks"]] for key in _FIELDS}
        nowhere = [math.nan] * len(rows["offset_mm"][0])
        reference = [nowhere if place is None else place for place in rows["reference_mm"]]
        habit = Habit(
            tuple(rows["landmark"]),
            _tensor(rows["offset_mm"]),
            _tensor(rows["deviation_mm"]),
            tuple(rows["corrections"]),
            _tensor(reference),
        )
        return cls(content["name"], habit, content["images"], content["found_by"])


def found_by(title: str, facts: Mapping[str, str], weights: str, templates: Sequence[AnnotatedImage]) -> dict:
    """Say what finds the landmarks of a run: kind of finder, bundle, digests of the weights and of the templates.

    Args:
        title: Kind of the finder.
        facts: Facts about the finder; only the name of the ``bundle`` is taken.
        weights: Digest of the weights.
        templates: Annotated images that are matched; none for a detection.
    """
    known = {"finder": title, "bundle": facts.get("bundle", ""), "weights": weights}
    if not templates:
        return known
    return known | {"template": templates_digest(templates)}


def _checked(file: Path) -> dict[str, Any]:
    """Content of a habit file that fits the schema, whose numbers are finite and whose landmarks fit each other."""
    import jsonschema

    expected = "give the habit.json of a run with corrections"
    try:
        content = parsed_json(utf8_text(file))
    except ValueError:
        raise ValueError(f"{file} is no reading habit but something else than JSON; {expected}") from None
    for fault in jsonschema.Draft202012Validator(SCHEMA).iter_errors(content):
        where = "".join(f"{key}: " for key in fault.absolute_path)
        raise ValueError(f"{file} is no reading habit: {where}{fault.message[:200]}; {expected}")
    landmarks = content["landmarks"]
    places = [place for one in landmarks for place in (one["offset_mm"], one["reference_mm"]) if place is not None]
    if len({len(place) for place in places}) > 1 or len({one["landmark"] for one in landmarks}) < len(landmarks):
        raise ValueError(f"{file} mixes landmarks of two and three axes, or has one twice; {expected}")
    if not all(
        math.isfinite(value) for place in (*places, [one["deviation_mm"] for one in landmarks]) for value in place
    ):
        raise ValueError(f"{file} holds a number that is not finite; {expected}")
    _check_sizes(file, landmarks, expected)
    return content


def _check_sizes(file: Path, landmarks: Sequence[Mapping[str, Any]], expected: str) -> None:
    """Refuse a reference shape without a size, and an offset larger than the shape, which no reader can mean."""
    shape = [one["reference_mm"] for one in landmarks if one["reference_mm"] is not None]
    if len(shape) < 2:
        return
    size = float(spread(_tensor(shape)))
    if size == 0:
        raise ValueError(f"{file} has all landmarks of the reference shape at one place; {expected}")
    for one in landmarks:
        if (length := math.hypot(*one["offset_mm"])) > size:
            raise ValueError(
                f"{file} moves the landmark {one['landmark']!r} by {length:.3g} mm, more than the size of the whole "
                f"shape, {size:.3g} mm; {expected}"
            )


def _tensor(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
