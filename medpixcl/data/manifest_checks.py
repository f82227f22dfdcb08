"""Checks of what a manifest says, which anybody may have written: types and forms of all that is used."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medpixcl.data.text import quoted

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is what it should be, and what that is."""


def checked_entries(path: Path, section: str, entries: object) -> list[dict[str, Any]]:
    """Copy the entries of a section; a text stands for an entry with an image.

    Args:
        path: Manifest, for messages.
        section: Name of the section.
        entries: What the manifest has under that name.

    Raises:
        ValueError: If they are no list, an entry names no image, or has a value that it cannot have.
    """
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {section} is no list; expected a list of entries with an image each.")
    return [checked_entry(path, f"entry {number} of {section}", entry) for number, entry in enumerate(entries)]


def checked_entry(path: Path, place: str, entry: object) -> dict[str, Any]:
    """Copy an entry; see :func:`checked_entries`.

    Args:
        path: Manifest, for messages.
        place: Place of the entry in it.
        entry: What the manifest has there.
    """
    entry = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not _is_image(entry.get("image")):
        raise ValueError(f"{path}: {place} names no image; expected a path or a list of paths.")
    _check_values(path, place, entry)
    return dict(entry)


def checked_rejected(path: Path, records: object) -> list[dict[str, Any]]:
    """Copy the records of rejected files.

    Raises:
        ValueError: If they are no list, or a record names no file or no reason.
    """
    if not isinstance(records, list):
        raise ValueError(f"{path}: rejected is no list; expected a list of files, each with its path and a reason.")
    return [checked_record(path, f"entry {number} of rejected", record) for number, record in enumerate(records)]


def checked_record(path: Path, place: str, record: object) -> dict[str, Any]:
    """Copy a record of a rejected file; see :func:`checked_rejected`."""
    if not isinstance(record, dict) or not all(_is_text(record.get(key)) for key in ("path", "reason")):
        raise ValueError(f"{path}: {place} names no file and reason; expected path and reason.")
    _check_values(path, place, record)
    return dict(record)


def checked_value(path: Path, place: str, value: Any, check: Check) -> Any:
    """Return a value that passes a check, or None.

    Raises:
        ValueError: If it does not.
    """
    fits, wanted = check
    if value is not None and not fits(value):
        raise ValueError(f"{path}: {place} is {quoted(value)}; expected {wanted}.")
    return value


def _check_values(path: Path, place: str, entry: dict[str, Any]) -> None:
    for key, value in entry.items():
        if key in _CHECKS:
            checked_value(path, f"{key} of {place}", value, _CHECKS[key])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_image(value: object) -> bool:
    return _is_text(value) or _are_paths(value)


def _are_paths(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _names_paths(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_label(value: object) -> bool:
    return _is_whole(value) or _is_image(value)


_TEXT: Check = (lambda value: isinstance(value, str), "text")
_CHECKS: dict[str, Check] = {
    "exogenous": (_names_paths, 'name and path, as {"depth": "a.png"}'),
    "landmarks": (
        lambda value: isinstance(value, str) or (_names_paths(value) and bool(value)),
        'the path of a landmark file, or that of each reader, as {"senior": "a.csv"}',
    ),
    "label": (_is_label, "the path of a label map, a list of the paths of masks, or the number of a class"),
    "resampled_from": (_is_image, "the path of a series, or the list of its files"),
    "spacing_mm": (
        lambda value: _is_size(value) or (isinstance(value, list) and 0 < len(value) < 4 and all(map(_is_size, value))),
        "a positive size in mm, or one for each of up to three axes",
    ),
    "tolerance_mm": (_is_size, "a distance in mm"),
    "shape": (lambda value: isinstance(value, list) and all(map(_is_whole, value)), "a list of numbers of voxels"),
    "group": (lambda value: isinstance(value, str | int), "a name or number"),
    "files": (_are_paths, "a list of the names of files"),
    **dict.fromkeys(
        ("split", "duplicate_group", "modality", "licence", "sha256", "stamp", "series", "fingerprint", "notice"), _TEXT
    ),
}
ABOUT: dict[str, Check] = {
    "name": _TEXT,
    "description": _TEXT,
    "licence": _TEXT,
    "created_with": _TEXT,
    "settings": (lambda value: isinstance(value, dict), "an object"),
}
"""Checks of what a manifest says about the data set."""
