"""The images of an adaptation: those to learn from and the annotated ones, without copies of what is held out."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medpixcl._json import parsed_json
from medpixcl.apps.images import ImageList
from medpixcl.apps.match import Matcher
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.datalist import Datalist, files_of, without_files
from medpixcl.data.duplicates import FingerprintTable, duplicate_groups
from medpixcl.data.identity import first_file
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.scan import scan
from medpixcl.data.templates import template_path

IMAGES = "images.json"
"""Name of the list of the images to learn from, in the folder of a training."""

log = logging.getLogger(__name__)


def list_images(images: Path, matcher: Matcher, spacing_mm: SpacingMM | None) -> Manifest:
    """List the images to learn from."""
    found = ImageList(images, spacing_mm, spatial_dims=matcher.spatial_dims)
    found.check()
    log.info("%d images to learn from, %d rejected", len(found.datalist), len(found.rejected))
    return found.manifest


def digests_of(matcher: Matcher, data: Manifest, given: Sequence[Any]) -> dict[str, str]:
    """Digests of all that an adaptation depends on, by what they stand for."""
    pictures = [(section, one["image"], one.get("sha256")) for section, one in data.listed()]
    parts = {"images to learn from": pictures, "settings": given}
    texts = {what: json.dumps(part, default=repr) for what, part in parts.items()}
    digests = {what: hashlib.sha256(text.encode()).hexdigest() for what, text in texts.items()}
    return {"annotated images or weights": matcher.digest} | digests


def require_same(folder: Path, inputs: Mapping[str, str]) -> None:
    """Refuse a folder with other files, and to go on with trainings of other inputs; their results would mix."""
    file = folder / "inputs.json"
    if not file.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files; give a new folder, or that of an adaptation to go on with")
    if file.is_file():
        try:
            before = dict(parsed_json(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            before = {}
        if other := [what for what, digest in inputs.items() if before.get(what) != digest]:
            raise ValueError(
                f"{folder} holds an adaptation with other {' and other '.join(other)}; give another folder"
            )
    write_text_atomically(file, json.dumps(inputs, indent=1) + "\n")


def without_copies(data: Manifest, held: Datalist) -> Manifest:
    """A data set without some images and without other copies of their pictures."""
    files = files_of(held)
    entries = [entry for _, entry in data.listed()]
    copies = {
        entry["duplicate_group"] for entry in entries if entry.get("duplicate_group") and files_of([entry]) & files
    }

    def kept(section: str) -> Datalist:
        others = without_files(data.datalist(section), files)
        return [entry for entry in others if entry.get("duplicate_group") not in copies]

    return replace(data, training=kept("training"), validation=kept("validation"), test=[], rejected=[])


def with_annotated(data: Manifest, items: Datalist, spacing_mm: SpacingMM | None) -> Manifest:
    """A data set with the annotated images, too; copies of one picture are named as such, whoever listed them."""
    training, validation = data.datalist("training"), data.datalist("validation")
    listed = [*training, *validation]
    if absent := without_files(items, files_of(listed)):
        found = scan([template_path(item) for item in absent], spacing_mm=spacing_mm)
        stated = {first_file(item): item for item in absent}
        added = [entry | stated.get(first_file(entry), {}) for _, entry in found.listed()]
        training += added
        listed += added
    prints = [entry.get("fingerprint") for entry in listed]
    if all(prints):
        table = FingerprintTable()
        for one in prints:
            table.add_text(str(one))
        for entry, group in zip(listed, duplicate_groups(table, declared=_declared(listed)), strict=True):
            entry["duplicate_group"] = group
    return replace(data, training=training, validation=validation, test=[])


def _declared(entries: Datalist) -> list[tuple[int, int]]:
    """Pairs of entries that the data set names as copies of one picture."""
    first: dict[str, int] = {}
    groups = [
        (number, entry["duplicate_group"]) for number, entry in enumerate(entries) if entry.get("duplicate_group")
    ]
    return [(first.setdefault(group, number), number) for number, group in groups]


def pictures_of(items: Datalist, data: Manifest) -> list[str]:
    """Name of the picture of each annotated image, the same for copies of it."""
    groups = {first_file(entry): entry.get("duplicate_group") for _, entry in data.listed()}
    return [groups.get(first_file(item)) or first_file(item) for item in items]
