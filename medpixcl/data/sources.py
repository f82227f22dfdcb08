"""Group the files under some folders into images."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.dicom import is_slice, is_volume, slice_header, why_unusable
from medpixcl.data.dicom_geometry import SliceGeometry, slice_geometry
from medpixcl.data.dicom_groups import volumes_of
from medpixcl.data.dicom_header import read_header
from medpixcl.data.images import image_format, why_no_image
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.series import dicom_files
from medpixcl.data.unusable import unusable
from medpixcl.data.volumes import detached_data

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One image on disk.

    Attributes:
        image: Path to read: a file, the folder of a series, or the list of its files in slice order.
        files: All files of the image.
    """

    image: Path | list[Path]
    files: tuple[Path, ...]

    @property
    def place(self) -> Path:
        """Path of the file, or folder of the series (the common one of several), for messages and look-up in tables."""
        if not self.is_series or len(self.files) == 1:
            return self.files[0]
        return Path(os.path.commonpath([file.parent for file in self.files]))

    @property
    def is_series(self) -> bool:
        """True for a DICOM series."""
        return self.image != self.files[0]


def visible_files(roots: Iterable[Path]) -> list[Path]:
    """List the given files and all files below the given folders, sorted within a root, without hidden ones.

    Symbolic links are followed; each folder is visited once.

    Raises:
        ValueError: If a folder cannot be opened.
    """
    files: dict[Path, None] = {}
    for root in roots:
        if root.is_file():
            files[root] = None
            continue
        seen = {root.resolve()}
        for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse):
            visible = sorted(name for name in subfolders if not name.startswith("."))
            subfolders[:] = [name for name in visible if _first(folder, name, seen)]
            files.update(dict.fromkeys(Path(folder, name) for name in sorted(names) if not name.startswith(".")))
    return list(files)


def _first(folder: str, name: str, seen: set[Path]) -> bool:
    """True if this folder was not met before; remembers it."""
    real = Path(folder, name).resolve()
    met = real in seen
    seen.add(real)
    return not met


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be opened ({error.strerror}); give read permission.") from error


def group_files(files: Sequence[Path]) -> tuple[list[Source], list[ImageFileError]]:
    """Group files into images: DICOM slices into volumes, also over folders, and headers with their data files.

    Returns:
        Images in the order of their first file, and errors with the reason for each file that is not an image.
    """
    sources: list[Source] = []
    rejected: list[ImageFileError] = []
    slices: list[SliceGeometry] = []
    data_files = {data for path in files if path.is_file() and (data := detached_data(path)) is not None}
    for path in files:
        if path in data_files:
            continue
        try:
            one = _recognise(path)
        except Exception as error:  # a damaged header makes the readers raise any kind of error
            found = unusable(path, error)
            log.debug("%s: %s", path.name, found.trace)
            rejected.append(ImageFileError(found.path, found.reason))
            continue
        if isinstance(one, Source):
            sources.append(one)
        else:
            slices.append(one)
    volumes, set_aside = volumes_of(slices)
    sources += [_series_source(volume) for volume in volumes]
    rejected += set_aside
    order = {path: number for number, path in enumerate(files)}
    return sorted(sources, key=lambda source: min(order[path] for path in source.files if path in order)), rejected


def _recognise(path: Path) -> Source | SliceGeometry:
    if path.exists() and not path.is_file():
        raise ImageFileError(path, "is not a regular file.")
    kind = image_format(path)
    if kind is None:
        raise ImageFileError(path, why_no_image(path))
    if kind != "dicom":
        data = detached_data(path)
        return Source(path, (path,) if data is None else (path, data))
    header = read_header(path)
    if (reason := why_unusable(header)) is not None:
        raise ImageFileError(path, reason)
    if is_volume(header) or not is_slice(header):
        return Source(path, (path,))
    return slice_geometry(slice_header(header))


def _series_source(slices: Sequence[SliceGeometry]) -> Source:
    """The folder stands for a series that has it for its own, so that the manifest stays short."""
    files = [one.path for one in slices]
    folder = files[0].parent
    alone = {file.parent for file in files} == {folder} and len(dicom_files(folder)) == len(files)
    return Source(folder if alone else files, tuple(files))
