"""The annotated images (templates) of a run: named one by one, or by the folder or manifest that holds them."""

import logging
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from medpixcl._typing import AnyPath
from medpixcl.data.datalist import Datalist, items_of
from medpixcl.data.identity import first_file, is_image_of
from medpixcl.data.image_keys import HOW_FOUND, why_unclear
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Manifest, is_manifest
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.scan import scan

log = logging.getLogger(__name__)


def template_items(
    paths: AnyPath | Sequence[AnyPath],
    landmarks: AnyPath | None = None,
    *,
    spacing_mm: SpacingMM | None = None,
    listed: Sequence[Mapping[str, Any]] = (),
) -> Datalist:
    """List annotated images.

    Args:
        paths: Image, folder of a DICOM series, folder of images or manifest; or several of these. Of the images of a
            folder or manifest those are taken that ``landmarks`` names.
        landmarks: Landmark file of the images, or a folder of landmark files.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        listed: Items of a datalist that may hold an image, too, with its pixel size and tolerance.

    Returns:
        Items with ``image`` and, where known, ``spacing_mm`` and ``tolerance_mm``; an image named twice stands once.

    Raises:
        ValueError: If there is no path, or a folder or manifest has several images and none has landmarks.
    """
    several = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not several:
        raise ValueError("no template is given; name at least one annotated image")
    found = [item for path in several for item in _items(checked_path(path, "the template"), landmarks, spacing_mm)]
    if len(found) > 1 and landmarks is not None and Path(landmarks).exists():
        _require_clear(found, landmarks)
    once: dict[Path, dict[str, Any]] = {}
    for item in found:
        once.setdefault(Path(first_file(item)).resolve(), item)
    return [listed_item(item, listed, spacing_mm) for item in once.values()]


def _items(path: Path, landmarks: AnyPath | None, spacing_mm: SpacingMM | None) -> Datalist:
    """Items of the annotated images that one path names."""
    if not (path.is_dir() or is_manifest(path)):
        return [{"image": str(path)}]
    manifest = scan(path, spacing_mm=spacing_mm) if path.is_dir() else Manifest.read(path)
    entries = [entry for _, entry in manifest.listed()]
    if landmarks is not None and (len(entries) > 1 or Path(landmarks).exists()):
        marks = read_landmarks(landmarks)
        _name_lost(manifest, marks)
        entries = _marked(entries, path, marks) if len(entries) > 1 else entries
    # Reading a folder without images says why they cannot be used.
    return items_of(entries) or [{"image": str(path)}]


def _name_lost(manifest: Manifest, marks: LandmarkFile) -> None:
    """Warn of annotated images that cannot be used."""
    for record in manifest.rejected:
        file = manifest.base_dir / str(record["path"])
        if marks.find(file) is not None:
            log.warning("%s has landmarks, and is left out: it %s", file, record["reason"])


def _marked(entries: Datalist, path: Path, marks: LandmarkFile) -> Datalist:
    """The entries that a landmark file names."""
    images = [template_path(entry) for entry in entries]
    keys = marks.assign(images).keys
    if not keys:
        raise ValueError(
            f"{path} has {len(entries)} images, and {marks.path} has landmarks of none of them but of "
            f"{marks.keys_shown()}; {HOW_FOUND}: name images of that landmark file as templates"
        )
    return [entry for entry, image in zip(entries, images, strict=True) if image in keys]


def _require_clear(items: Datalist, landmarks: AnyPath) -> None:
    """Refuse a name in a landmark file that fits several templates."""
    unclear = (
        read_landmarks(landmarks)
        .assign(list({template_path(item).resolve(): template_path(item) for item in items}.values()))
        .unclear
    )
    for key, images in unclear.items():
        raise ValueError(f"{landmarks} {why_unclear(key, images)}")


def template_path(item: Mapping[str, Any]) -> Path:
    """Path by which a landmark file names the image of an item: its file, or the folder of its slices."""
    image = item["image"]
    return Path(image) if isinstance(image, str) else Path(os.path.commonpath([Path(one).parent for one in image]))


def listed_item(
    item: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], spacing_mm: SpacingMM | None
) -> dict[str, Any]:
    """Complete an item by what a datalist says about its image.

    Args:
        item: Item with ``image``, a path or the files of a series.
        listed: Items of the datalist, of which the one of the same image gives the pixel size and the tolerance.
        spacing_mm: Pixel size in mm that goes before that of the datalist.
    """
    file = Path(first_file(item)).resolve()
    known = next((one for one in listed if is_image_of(one, file)), {})
    return items_of([{**known, **item, **({} if spacing_mm is None else {"spacing_mm": spacing_mm})}])[0]
