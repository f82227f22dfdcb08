"""Find the images of a folder, check every one, and list them; nothing is left out without a reason."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import Progress
from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.data.duplicates import Fingerprint, duplicate_groups, image_fingerprint
from medpixcl.data.exogenous import ExogenousFiles, Grid, read_exogenous
from medpixcl.data.gantry_tilt import TiltResampling
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Entry, Manifest
from medpixcl.data.pixels import ImageFileError, SpacingMM
from medpixcl.data.sources import Source, group_files, visible_files
from medpixcl.data.splits import SplitFile, section_of

_SHOWN = 5


@dataclass(frozen=True)
class ScannedImage:
    """A usable image: its source, affine, manifest entry, and the fingerprint by which its repeats are found."""

    source: Source
    affine: Float[Tensor, "4 4"]
    entry: Entry
    content: Fingerprint


def scan(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    spacing_mm: SpacingMM | None = None,
    landmarks: str | PathLike[str] | Mapping[str, str | PathLike[str]] | None = None,
    split: str | PathLike[str] | None = None,
    licence: str | None = None,
    exogenous: Mapping[str, str | PathLike[str]] | None = None,
    labels: str | PathLike[str] | Mapping[str, str | PathLike[str]] | None = None,
    resample_tilt: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """List the images under some folders.

    Every image is read completely, as training will read it. DICOM slices are grouped by series and folder and must
    form one regular volume. Repeats are found by content (:mod:`medpixcl.data.duplicates`). Hidden files are skipped.

    Args:
        paths: Folders or image files to list.
        spacing_mm: Pixel size in mm of 2D images whose file has none; without it such images are rejected.
        landmarks: Landmark file or folder, or a mapping from readers' names to these. The points must lie inside their
            images.
        split: CSV file that assigns every image to a split; images that it does not name are rejected.
        licence: Licence of the images.
        exogenous: Mapping from channels' names to the folders of their files
            (:class:`medpixcl.data.exogenous.ExogenousFiles`); images without one, or with one of another size, are
            rejected.
        labels: Folder of the label maps, matched to images like exogenous channels; or a mapping from classes to the
            folders of their masks. Images without a label, or with one of another size, are rejected.
        resample_tilt: Folder for CT series with gantry tilt, resampled to a regular grid and written as NIfTI; without
            it such series are rejected. It is not searched for images.
        progress: Function called with (done, total) after each image.

    Returns:
        The manifest; its paths are relative to the folder scanned (or the common folder of several).

    Raises:
        ValueError: If a path does not exist, the landmark or split file is bad, a landmark lies outside its image, or
            several exogenous files or labels fit an image.
    """
    roots = [Path(one).absolute() for one in ([paths] if isinstance(paths, str | PathLike) else paths)]
    base_dir = _common_folder(roots)
    several = isinstance(landmarks, Mapping)
    readers = landmarks if isinstance(landmarks, Mapping) else {} if landmarks is None else {"": landmarks}
    points = {name: read_landmarks(file) for name, file in readers.items()}
    splits = None if split is None else SplitFile(Path(split))
    tables = [table.path.absolute() for table in (*points.values(), splits) if table is not None]
    channels = [ExogenousFiles(name, folder) for name, folder in (exogenous or {}).items()]
    named = labels if isinstance(labels, Mapping) else {"label": labels} if labels is not None else {}
    label_files = [ExogenousFiles(name, folder, what="label") for name, folder in named.items()]
    beside = {*tables, *(file for channel in (*channels, *label_files) for file in channel.files)}
    files = [path for path in visible_files(roots) if path not in beside]
    untilt = None
    if resample_tilt is not None:
        folder = Path(resample_tilt).absolute()
        files = [path for path in files if not path.is_relative_to(folder)]
        untilt = TiltResampling(folder, base_dir)
    sources, refused = group_files(files)
    manifest = Manifest(name=base_dir.name, licence=licence, base_dir=base_dir)
    manifest.rejected = [{"path": _shown(error.path, base_dir), "reason": error.reason} for error in refused]
    found: list[ScannedImage] = []
    for done, source in enumerate(sources, start=1):
        try:
            image = source if untilt is None else untilt(source)
            one = _examine(image, base_dir, spacing_mm=spacing_mm, licence=licence)
            _add_exogenous(one, channels, [*roots, base_dir], base_dir)
            _add_label(one, label_files, [*roots, base_dir], base_dir, alone=not isinstance(labels, Mapping))
            found.append(one)
        except ImageFileError as error:
            manifest.rejected.append(_rejected_source(source, error, base_dir))
        if progress is not None:
            progress(done, len(sources))
    for reader, file in points.items():
        _add_landmarks(found, file, manifest, reader if several else None)
    declared = [] if splits is None else _add_splits(found, splits, manifest)
    groups = duplicate_groups([one.content for one in found], declared=declared)
    for one, group in zip(found, groups, strict=True):
        getattr(manifest, section_of(one.entry["split"])).append({**one.entry, "duplicate_group": group})
    manifest.rejected.sort(key=lambda record: record["path"])
    return manifest


def content_sha256(files: Sequence[Path]) -> str:
    """Compute the checksum of one file, or of the listing that ``sha256sum *`` prints for several, sorted by name."""
    digests = []
    for path in sorted(files, key=lambda one: one.name):
        with path.open("rb") as file:
            digests.append((hashlib.file_digest(file, "sha256").hexdigest(), path.name))
    if len(digests) == 1:
        return digests[0][0]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in digests).encode()).hexdigest()


def _common_folder(roots: Sequence[Path]) -> Path:
    for root in roots:
        if not root.exists():
            raise ValueError(f"{root} does not exist; expected a folder or an image.")
    if not roots:
        raise ValueError("no path to scan; give a folder or an image.")
    common = Path(os.path.commonpath(roots))
    return common if common.is_dir() else common.parent


def _examine(source: Source, base_dir: Path, *, spacing_mm: SpacingMM | None, licence: str | None) -> ScannedImage:
    if any(_shown(file, base_dir) != _relative(file, base_dir) for file in source.files):
        raise ImageFileError(source.place, "has a name that is not UTF-8; rename it.")
    image = read_image(source.image, spacing_mm=spacing_mm)
    dims = image.ndim - 1
    affine = torch.as_tensor(image.affine)
    spacing = spacing_of(spatial_affine(affine, dims)).tolist()
    entry: Entry = {
        "image": _relative(source.image, base_dir),
        "spacing_mm": [round(size, 6) for size in spacing],
        "spacing_source": image.meta["spacing_source"],
        "shape": list(image.shape[1:]),
        "modality": image.meta["modality"] or None,
        "sha256": content_sha256(source.files),
        "licence": licence,
        "split": None,
        "duplicate_group": None,
        "landmarks": None,
    }
    return ScannedImage(source, affine, entry, image_fingerprint(image[0].numpy()))


def _rejected_source(source: Source, error: ImageFileError, base_dir: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"path": _shown(source.place, base_dir), "reason": error.reason}
    if source.is_series:
        if error.path in source.files:
            record["reason"] = f"slice {error.path.name} {error.reason}"
        record["files"] = [_shown(path, path.parent) for path in source.files]
    return record


def _add_exogenous(
    one: ScannedImage, channels: Sequence[ExogenousFiles], roots: Sequence[Path], base_dir: Path
) -> None:
    """Name the files of the exogenous channels in an entry, after a check that they fit the image."""
    if channels:
        one.entry["exogenous"] = {
            channel.name: _relative(_fitting(one, channel, roots, kind="continuous"), base_dir) for channel in channels
        }


def _add_label(
    one: ScannedImage, files: Sequence[ExogenousFiles], roots: Sequence[Path], base_dir: Path, alone: bool
) -> None:
    """Name the label map or the masks in an entry, after a check that they fit the image."""
    if files:
        paths = [_relative(_fitting(one, channel, roots, kind="categorical"), base_dir) for channel in files]
        one.entry["label"] = paths[0] if alone else paths


def _fitting(one: ScannedImage, channel: ExogenousFiles, roots: Sequence[Path], *, kind: str) -> Path:
    """File of an image that has its size and place."""
    image = one.source.place
    path = channel.find(image, roots)
    if path is None:
        raise ImageFileError(image, f"has no {channel.what} {channel.name!r} in {channel.folder}; add its file.")
    try:
        read_exogenous(path, Grid(tuple(one.entry["shape"]), one.affine), kind=kind)
    except ImageFileError as error:
        raise ImageFileError(image, f"has a {channel.name} file that does not fit: {error}") from error
    return path


def _add_landmarks(found: Sequence[ScannedImage], points: LandmarkFile, manifest: Manifest, reader: str | None) -> None:
    """Name the landmark file in the entries of the images that it holds, after a check that the points lie inside."""
    file = _relative(points.path.absolute(), manifest.base_dir)
    named = set()
    for one in found:
        key = points.find(one.source.place)
        if key is not None:
            points.for_image(one.source.place, one.affine, one.entry["shape"])
            one.entry["landmarks"] = file if reader is None else {**(one.entry["landmarks"] or {}), reader: file}
            named.add(key)
    _note_absent(points.path, [key for key in points.images if key not in named], "landmarks", manifest)


def _add_splits(found: list[ScannedImage], splits: SplitFile, manifest: Manifest) -> list[tuple[int, int]]:
    """Give every image its split, reject those without; return the repeats that the file declares, as indices."""
    keys = [splits.find(one.source.place) for one in found]
    for one, key in zip(found, keys, strict=True):
        if key is None:
            reason = f"is not named in {splits.path.name}; give it a split."
            manifest.rejected.append({"path": _relative(one.source.place, manifest.base_dir), "reason": reason})
        else:
            one.entry["split"] = splits.splits[key]
    found[:] = [one for one, key in zip(found, keys, strict=True) if key is not None]
    place = {key: index for index, key in enumerate(key for key in keys if key is not None)}
    _note_absent(splits.path, [key for key in splits.splits if key not in place], "a split", manifest)
    pairs = [(key, other) for key, other in splits.duplicate_of.items() if {key, other} <= place.keys()]
    return [(place[key], place[other]) for key, other in pairs]


def _note_absent(table: Path, keys: Sequence[str], what: str, manifest: Manifest) -> None:
    if keys:
        shown = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
        reason = f"gives {what} to {len(keys)} image(s) that are not among those taken: {shown}."
        manifest.rejected.append({"path": _relative(table.absolute(), manifest.base_dir), "reason": reason})


def _shown(path: Path, base_dir: Path) -> str:
    """Relative path as text; bytes that are not UTF-8 are written with a backslash."""
    return os.fsencode(_relative(path, base_dir)).decode("utf-8", "backslashreplace")


def _relative(path: Path | Sequence[Path], base_dir: Path) -> Any:
    if isinstance(path, Path):
        return Path(os.path.relpath(path, base_dir)).as_posix()
    return [_relative(one, base_dir) for one in path]
