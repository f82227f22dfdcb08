"""Group the files under some folders into images."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.dicom import is_slice, is_volume, slice_header, why_unusable
from medpixcl.data.dicom_geometry import SliceGeometry, slice_geometry
from medpixcl.data.dicom_groups import volumes_of
from medpixcl.data.dicom_header import read_header
from medpixcl.data.dicom_pixels import WITHOUT_PIXELS
from medpixcl.data.images import image_format, why_no_image
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.series import dicom_files, has_pixels
from medpixcl.data.unusable import Unusable, unusable
from medpixcl.data.volumes import detached_data, is_header

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


def visible_files(roots: Iterable[Path], *, list_closed: bool = False) -> list[Path]:
    """List the given files and all files below the given folders, sorted within a root, without hidden ones.

    Symbolic links are followed; each folder is visited once.

    Args:
        roots: Files and folders.
        list_closed: List a folder that cannot be opened itself, so that its files are not passed over in silence.

    Raises:
        ValueError: If a folder cannot be opened and is not to be listed.
    """
    files: dict[Path, None] = {}
    closed: list[OSError] = []
    for root in roots:
        if root.is_file():
            files[root] = None
            continue
        seen = {root.resolve()}
        for folder, subfolders, names in os.walk(root, followlinks=True, onerror=closed.append):
            visible = sorted(name for name in subfolders if not name.startswith("."))
            subfolders[:] = [name for name in visible if _first(folder, name, seen)]
            files.update(dict.fromkeys(Path(folder, name) for name in sorted(names) if not name.startswith(".")))
    if closed and not list_closed:
        raise ValueError(f"{closed[0].filename} cannot be opened ({closed[0].strerror}); give read permission.")
    return [*files, *(Path(error.filename) for error in closed)]


def _first(folder: str, name: str, seen: set[Path]) -> bool:
    """True if this folder was not met before; remembers it."""
    real = Path(folder, name).resolve()
    met = real in seen
    seen.add(real)
    return not met


def attached_files(files: Iterable[Path]) -> set[Path]:
    """Data files that the headers among some files point to."""
    return {data for path in files if is_header(path) and (data := _data_of(path)) is not None}


def _data_of(header: Path) -> Path | None:
    try:
        return detached_data(header) if header.is_file() else None
    except OSError:  # its folder cannot be searched; the header itself is rejected for that
        return None


def group_files(files: Sequence[Path]) -> tuple[list[Source], list[Unusable]]:
    """Group files into images: DICOM slices into volumes, also over folders, and headers with their data files.

    Returns:
        Images in the order of their first file, and the files that are none, with reasons.
    """
    sources: list[Source] = []
    rejected: list[Unusable] = []
    slices: list[SliceGeometry] = []
    data_files = attached_files(files)
    for path in files:
        if path in data_files:
            continue
        try:
            one = _recognise(path)
        except Exception as error:  # a damaged header makes the readers raise any kind of error
            found = unusable(path, error)
            log.debug("%s: %s", path.name, found.trace)
            rejected.append(found)
            continue
        if isinstance(one, Source):
            sources.append(one)
        else:
            slices.append(one)
    slices, empty = _without_empty_copies(slices)
    rejected += [unusable(error.path, error) for error in empty]
    volumes, set_aside = volumes_of(slices)
    sources += [_series_source(volume) for volume in volumes]
    rejected += [unusable(error.path, error) for error in set_aside]
    return in_file_order(sources, files), rejected


def in_file_order(sources: Sequence[Source], files: Sequence[Path]) -> list[Source]:
    """Sort images by their first file among ``files``."""
    order = {path: number for number, path in enumerate(files)}
    return sorted(sources, key=lambda source: min(order[path] for path in source.files if path in order))


def _recognise(path: Path) -> Source | SliceGeometry:
    if path.is_dir():
        next(path.iterdir(), None)  # a folder in the list is one that cannot be opened
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


def _without_empty_copies(slices: Sequence[SliceGeometry]) -> tuple[list[SliceGeometry], list[ImageFileError]]:
    """Slices without the files that share their instance with another one and hold no pixels."""
    files = {(one.instance, one.path) for one in slices if one.instance}
    numbers = Counter(instance for instance, _ in files)
    empty = {path for instance, path in files if numbers[instance] > 1 and not has_pixels(path)}
    errors = [ImageFileError(path, WITHOUT_PIXELS) for path in sorted(empty)]
    return [one for one in slices if one.path not in empty], errors


def _series_source(slices: Sequence[SliceGeometry]) -> Source:
    """The folder stands for a series that has it for its own, so that the manifest stays short."""
    files = [one.path for one in slices]
    folder = files[0].parent
    alone = {file.parent for file in files} == {folder} and len(dicom_files(folder)) == len(files)
    return Source(folder if alone else files, tuple(files))
