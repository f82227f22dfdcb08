"""Find the images among the files of a scan; what did not change since an earlier scan is not opened."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medpixcl._typing import Progress
from medpixcl.data.dicom_geometry import SliceGeometry
from medpixcl.data.gantry_tilt import TiltResampling
from medpixcl.data.known_images import KnownImages
from medpixcl.data.known_series import SettledVolume
from medpixcl.data.parallel_reading import ParallelReading
from medpixcl.data.reasons import SHOWN
from medpixcl.data.scan_inputs import ScanInputs
from medpixcl.data.scan_rejections import Rejections
from medpixcl.data.sources import (
    FileSource,
    SeriesSource,
    Source,
    attached_files,
    group_slices,
    links_out,
    series_digest,
    visible_names,
)
from medpixcl.data.unusable import Unusable, unusable
from medpixcl.data.volumes import has_header_name

log = logging.getLogger(__name__)


class ImageList:
    """Images in order. Those of one file, which may be a hundred thousand, are held as text until they are asked for.

    Args:
        images: Images, or the names of their only files.
    """

    def __init__(self, images: Iterable[str | Source]) -> None:
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Source]:
        return (FileSource(one) if isinstance(one, str) else one for one in self._images)

    def where(self, chosen: Callable[[Source], bool]) -> "ImageList":
        """Those of the images for which a function is true."""
        return ImageList(held for held, one in zip(self._images, self, strict=True) if chosen(one))


def find_images(
    inputs: ScanInputs,
    known: KnownImages,
    reading: ParallelReading,
    rejections: Rejections,
    progress: Progress | None = None,
) -> ImageList:
    """Find the images in the order of their first files, and reject the other files.

    Args:
        inputs: What to scan.
        known: What an earlier scan found.
        reading: Processes that look at the other files.
        rejections: Takes the files that are no images.
        progress: Function called with (done, total) after each file that was looked at.
    """
    names = _listed(inputs, known)
    found = _Found(names)
    _take_known(found, known, rejections)
    resampling = (
        None if inputs.resampled is None else TiltResampling(inputs.resampled, inputs.folder, inputs.tolerance_mm)
    )
    settled = _settled_series(found, known)
    undecided = found.undecided()
    slices = _recognised(found, undecided, reading, rejections, progress)
    opened = {series_digest(one) for one in slices}
    opened |= {one.volume.series for one in settled if _is_elsewhere(one, inputs)}
    files = [name for one in settled if one.volume.series in opened for name in one.files]
    again = [found.numbers[name] for name in files]
    slices += _recognised(found, again, reading, rejections, progress, before=len(undecided))
    for one in settled:
        if one.volume.series not in opened:
            _take_volume(one, found, known, rejections, resampling)
    volumes, aside = group_slices(slices)
    for refused in aside:
        rejections.add_file(refused)
    for source in volumes:
        _place_volume(source, found, rejections, resampling)
    return ImageList(found.images())


@dataclass
class _Found:
    """What each of the listed files turned out to be.

    Attributes:
        names: The files, in order.
        kinds: For each file the image that begins with it, as its name or a :class:`Source`; False if it is none or
            part of another; None while that is not known.
        numbers: Places of the slices among the files.
    """

    names: list[str]
    kinds: list[str | Source | bool | None] = field(init=False)
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kinds = [None] * len(self.names)

    def undecided(self) -> list[int]:
        return [number for number, kind in enumerate(self.kinds) if kind is None]

    def images(self) -> Iterator[str | Source]:
        return (kind for kind in self.kinds if isinstance(kind, str | Source))

    def place(self, source: Source, files: Iterable[str]) -> None:
        """Put a volume where the first of its slices is."""
        self.kinds[min(self.numbers[file] for file in files)] = source


def _listed(inputs: ScanInputs, known: KnownImages) -> list[str]:
    """Files to look at: without tables, maps, manifests, resampled volumes, and data files of headers."""
    beside = {str(table.path.absolute()) for table in inputs.tables} | known.files
    beside |= {str(file) for channel in inputs.map_files for file in channel.files}
    if inputs.parts is not None:
        beside.add(str(inputs.parts.output.absolute()))
    left_out = None if inputs.resampled is None else f"{inputs.resampled}{os.sep}"
    names = [
        name
        for name in visible_names(inputs.roots, list_closed=True)
        if name not in beside and not (left_out and name.startswith(left_out))
    ]
    _name_links(links_out(names, inputs.roots))
    attached = {str(path) for path in attached_files(Path(name) for name in names if has_header_name(name))}
    names = [name for name in names if name not in attached] if attached else names
    return names if inputs.parts is None else inputs.parts.share(names)


def _name_links(links: Sequence[str]) -> None:
    """Log the links that lead out of the scanned folders."""
    for link in links[:SHOWN]:
        log.warning("%s is a link that leads out of the scanned folder; what is there is read like all else.", link)
    if len(links) > SHOWN:
        log.warning("%d more links lead out of the scanned folder.", len(links) - SHOWN)


def _take_known(found: _Found, known: KnownImages, rejections: Rejections) -> None:
    """Images of one file, and rejected files, that are as they were."""
    for number, name in enumerate(found.names):
        if known.settles(name):
            record = known.rejected(name)
            found.kinds[number] = name if record is None else False
            if record is not None:
                rejections.take_over(record)


def _settled_series(found: _Found, known: KnownImages) -> list[SettledVolume]:
    settled = known.settled_series([found.names[number] for number in found.undecided()])
    names = {name for one in settled for name in one.files}
    for number, name in enumerate(found.names) if names else ():
        if name in names:
            found.kinds[number], found.numbers[name] = False, number
    return settled


def _is_elsewhere(one: SettledVolume, inputs: ScanInputs) -> bool:
    """True for a volume that was resampled to a file in another folder than this scan's."""
    return bool(one.volume.made) and not (inputs.resampled and Path(one.volume.made).is_relative_to(inputs.resampled))


def _recognised(
    found: _Found,
    numbers: Sequence[int],
    reading: ParallelReading,
    rejections: Rejections,
    progress: Progress | None,
    *,
    before: int = 0,
) -> list[SliceGeometry]:
    """Look at files, some of them ``before``; return the slices among them, whose images are not known yet."""
    names = [found.names[number] for number in numbers]
    slices, shared = [], _SharedValues()
    looked_at = zip(numbers, names, reading.recognise(names), strict=True)
    for done, (number, name, one) in enumerate(looked_at, start=before + 1):
        found.kinds[number] = False
        if isinstance(one, SliceGeometry):
            slices.append(shared.of(one, name))
            found.numbers[name] = number
        elif isinstance(one, Unusable):
            rejections.add_file(one)
        else:
            found.kinds[number] = name if isinstance(one, FileSource) else one
        if progress is not None:
            progress(done, before + len(numbers))
    return slices


class _SharedValues:
    """Lets the slices of a series share the values that they have in common."""

    def __init__(self) -> None:
        self._met: dict[Any, Any] = {}

    def of(self, one: SliceGeometry, file: str) -> SliceGeometry:
        """The slice of a file with shared values; its path is the text that is held already."""
        shared = {
            name: self._met.setdefault((name, value), value)
            for name in ("series", "modality", "size", "spacing", "scan", "image_type")
            for value in (getattr(one, name),)
        }
        shared["orientation"] = self._met.setdefault(one.orientation.tobytes(), one.orientation)
        shared["acquisition"] = self._met.setdefault(tuple(one.acquisition.items()), one.acquisition)
        return replace(one, file=file, **shared)


def _take_volume(
    one: SettledVolume,
    found: _Found,
    known: KnownImages,
    rejections: Rejections,
    resampling: TiltResampling | None,
) -> None:
    """A volume of slices, or what was refused, as an earlier scan had it."""
    volume = one.volume
    if volume.number is None:
        rejections.take_over(volume.record)
        return
    source: Source = SeriesSource(one.files, volume.series, volume.folder)
    if volume.made and resampling is not None:
        source = resampling.known(source, Path(volume.made), volume.modality)
    known.settle(volume.number)
    found.place(source, one.files)


def _place_volume(source: Source, found: _Found, rejections: Rejections, resampling: TiltResampling | None) -> None:
    """A volume of slices that were looked at, resampled if its gantry is tilted."""
    try:
        found.place(source if resampling is None else resampling(source), source.names)
    except Exception as error:  # damaged slices make the readers raise any kind of error
        rejections.add_image(source, unusable(source.place, error))
