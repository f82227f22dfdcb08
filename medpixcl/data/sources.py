"""Group the files under some folders into images."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medpixcl.data.dicom import is_slice, is_volume, slice_header, why_unusable
from medpixcl.data.dicom_elements import read_elements
from medpixcl.data.dicom_geometry import SliceGeometry, slice_geometry
from medpixcl.data.dicom_groups import series_of, volumes_of
from medpixcl.data.dicom_header import read_header
from medpixcl.data.images import image_format
from medpixcl.data.other_files import why_no_image
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.result_folders import is_result_folder
from medpixcl.data.series import check_size, dicom_files
from medpixcl.data.unusable import Unusable, unusable
from medpixcl.data.volumes import detached_data, is_header


@dataclass(frozen=True)
class Source:
    """One image on disk.

    Attributes:
        image: Path to read: a file, the folder of a series, or the list of its files in slice order.
        files: All files of the image.
        series: Digest of the series of a volume of slices, see :func:`series_digest`; empty for other images.
        made_from: Series that a volume was resampled from.
        modality: DICOM modality of that series, which the file of the volume does not state.
    """

    image: Path | list[Path]
    files: tuple[Path, ...]
    series: str = ""
    made_from: "Source | None" = None
    modality: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All files of the image as text."""
        return tuple(map(str, self.files))

    @property
    def place(self) -> Path:
        """Path of the file, or folder of the series (the common one of several), for messages and look-up in tables."""
        if not self.is_series or len(self.files) == 1:
            return self.files[0]
        return Path(os.path.commonpath([file.parent for file in self.files]))

    @cached_property
    def key(self) -> str:
        """The image as text: its path, or the lines of its list of files."""
        return str(self.image) if isinstance(self.image, Path) else "\n".join(map(str, self.image))

    @property
    def is_series(self) -> bool:
        """True for a DICOM series."""
        return isinstance(self, SeriesSource)


class FileSource(Source):
    """An image of one file that is no slice, held as text until its path is asked for: many paths are large.

    Args:
        name: Path of the file.
    """

    def __init__(self, name: str) -> None:
        self.__dict__["key"] = name

    @cached_property
    def image(self) -> Path:
        """Path of the file."""
        return Path(self.key)

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.image,)

    @property
    def names(self) -> tuple[str, ...]:
        """The one file as text."""
        return (self.key,)


class SeriesSource(Source):
    """A volume of slices, whose paths are held as text until they are asked for.

    Args:
        names: Paths of the slices, in their order.
        series: Digest of the series.
        folder: Folder that is the volume's alone, or empty.
    """

    _names: tuple[str, ...]
    _folder: str

    def __init__(self, names: Iterable[str], series: str = "", folder: str = "") -> None:
        self.__dict__.update(_names=tuple(names), series=series, _folder=folder)

    @property
    def image(self) -> Path | list[Path]:
        """The folder, or the list of the slices."""
        return Path(self._folder) if self._folder else list(self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The slices."""
        return tuple(map(Path, self._names))

    @property
    def names(self) -> tuple[str, ...]:
        """The slices as text."""
        return self._names


def visible_files(roots: Iterable[Path], *, list_closed: bool = False) -> list[Path]:
    """List the given files and all files below the given folders, sorted within a root, without hidden ones.

    Symbolic links are followed; each folder is visited once, and folders with the results of a run are passed over.

    Args:
        roots: Files and folders.
        list_closed: List a folder that cannot be opened itself, so that its files are not passed over in silence.

    Raises:
        ValueError: If a folder cannot be opened and is not to be listed.
    """
    return [Path(name) for name in visible_names(roots, list_closed=list_closed)]


def visible_names(roots: Iterable[Path], *, list_closed: bool = False) -> list[str]:
    """:func:`visible_files` as text, which takes a tenth of the memory of paths."""
    names: list[str] = []
    closed: list[OSError] = []
    several = len(roots := list(roots)) > 1
    for root in roots:
        names += [str(root)] if root.is_file() else _names_below(root, closed)
    if closed and not list_closed:
        raise ValueError(f"{closed[0].filename} cannot be opened ({closed[0].strerror}); give read permission.")
    names += (error.filename for error in closed)
    return list(dict.fromkeys(names)) if several else names


def _names_below(root: Path, closed: list[OSError]) -> Iterator[str]:
    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=closed.append):
        visible = sorted(
            name for name in subfolders if not name.startswith(".") and not is_result_folder(Path(folder, name))
        )
        subfolders[:] = [name for name in visible if _first(folder, name, seen)]
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))  # noqa: PTH118


def links_out(names: Iterable[str], roots: Iterable[Path]) -> list[str]:
    """Links among some files, and among the folders that hold them, that lead out of the folders ``roots``, sorted."""
    names, tops = list(names), [str(root) for root in roots]
    folders = {os.path.dirname(name) for name in names}  # noqa: PTH120 - much faster than paths
    above = {str(one) for folder in map(Path, folders) for one in (folder, *folder.parents)}
    below = [one for one in (*above, *names) if any(one.startswith(f"{top}{os.sep}") for top in tops)]
    inside = [f"{os.path.realpath(top)}{os.sep}" for top in tops]
    links = (one for one in below if os.path.islink(one))  # noqa: PTH114
    return sorted(one for one in links if not f"{os.path.realpath(one)}{os.sep}".startswith(tuple(inside)))


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
    data_files = attached_files(files)
    found = [recognise(path) for path in files if path not in data_files]
    volumes, set_aside = group_slices([one for one in found if isinstance(one, SliceGeometry)])
    sources = [*(one for one in found if isinstance(one, Source)), *volumes]
    return in_file_order(sources, files), [*(one for one in found if isinstance(one, Unusable)), *set_aside]


def group_slices(slices: Sequence[SliceGeometry]) -> tuple[list[Source], list[Unusable]]:
    """Group DICOM slices into volumes.

    Returns:
        Volumes, and the slices that are set aside, with reasons and the digests of their series.
    """
    whole, incomplete = _without_incomplete_copies(slices)
    volumes, aside = volumes_of(whole)
    refused = [*incomplete, *(unusable(error.path, error) for error in aside)]
    series = {one.file: series_digest(one) for one in slices} if refused else {}
    return [_series_source(one) for one in volumes], [replace(one, series=series[str(one.path)]) for one in refused]


def _without_incomplete_copies(slices: Sequence[SliceGeometry]) -> tuple[list[SliceGeometry], list[Unusable]]:
    """Slices without the files that share their instance with another one and do not hold all pixels."""
    files = {(one.instance, one.file) for one in slices if one.instance}
    numbers = Counter(instance for instance, _ in files)
    copies = sorted(file for instance, file in files if numbers[instance] > 1)
    incomplete = {file: found for file in copies if (found := _why_incomplete(Path(file))) is not None}
    return [one for one in slices if one.file not in incomplete], list(incomplete.values())


def _why_incomplete(path: Path) -> Unusable | None:
    try:
        check_size(path)
    except Exception as error:  # a damaged header makes the readers raise any kind of error
        return unusable(path, error)
    return None


def series_digest(one: SliceGeometry) -> str:
    """Name for the slices that are grouped together, the same in every scan; it does not show their identifier."""
    series = series_of(one)
    name = series.name if isinstance(series, Path) else series
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def in_file_order(sources: Sequence[Source], files: Sequence[Path]) -> list[Source]:
    """Sort images by their first file among ``files``."""
    order = {path: number for number, path in enumerate(files)}
    return sorted(sources, key=lambda source: min(order[path] for path in source.files if path in order))


def recognise(path: Path) -> Source | SliceGeometry | Unusable:
    """Tell what a file is: an image of its own, a slice of a volume, or none of both, with the reason."""
    try:
        return _recognised(path)
    except Exception as error:  # a damaged header makes the readers raise any kind of error
        return unusable(path, error)


def _recognised(path: Path) -> Source | SliceGeometry:
    if path.is_dir():
        next(path.iterdir(), None)  # a folder in the list is one that cannot be opened
    kind = image_format(path)
    if kind is None:
        raise ImageFileError(path, why_no_image(path))
    if kind != "dicom":
        data = detached_data(path)
        return FileSource(str(path)) if data is None else Source(path, (path, data))
    elements = read_elements(path)
    header = read_header(path) if elements is None else elements.header
    if (reason := why_unusable(header)) is not None:
        raise ImageFileError(path, reason)
    if is_volume(header) or not is_slice(header):
        return FileSource(str(path))
    return slice_geometry(slice_header(header))


def _series_source(slices: Sequence[SliceGeometry]) -> SeriesSource:
    """The folder stands for a series that has it for its own, so that the manifest stays short."""
    folder = slices[0].folder
    alone = {one.folder for one in slices} == {folder} and len(dicom_files(Path(folder))) == len(slices)
    return SeriesSource((one.file for one in slices), series_digest(slices[0]), folder if alone else "")
