"""Find the images of a folder, check every one, and list them; nothing is left out without a reason."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from medpixcl._typing import AnyPath, Number, Progress
from medpixcl.data.atomic import replaced_atomically
from medpixcl.data.duplicates import FingerprintTable, duplicate_groups
from medpixcl.data.examination import Examination
from medpixcl.data.known_images import KnownImages
from medpixcl.data.manifest import (
    LINES_SUFFIX,
    MANIFEST_SUFFIXES,
    REJECTED,
    Entry,
    Manifest,
    entry_line,
    is_manifest,
    json_line,
    line_with_group,
)
from medpixcl.data.manifest_paths import has_utf8_name
from medpixcl.data.manifest_summary import ManifestSummary
from medpixcl.data.parallel_reading import ParallelReading
from medpixcl.data.part_numbers import check_part
from medpixcl.data.paths import checked_file, shown_value
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.scan_entries import ScanEntries
from medpixcl.data.scan_grouping import ImageList, find_images
from medpixcl.data.scan_inputs import ScanInputs
from medpixcl.data.scan_maps import ImageMaps
from medpixcl.data.scan_parts import ScanParts
from medpixcl.data.scan_rejections import Rejections
from medpixcl.data.scan_tables import ScanTables
from medpixcl.data.sources import Source
from medpixcl.data.splits import section_of
from medpixcl.data.unusable import Unusable

Record = tuple[str, Entry]
"""Section of the manifest, or ``rejected``, and the entry."""


def scan(
    paths: AnyPath | Sequence[AnyPath],
    *,
    spacing_mm: SpacingMM | None = None,
    landmarks: AnyPath | Mapping[str, AnyPath] | None = None,
    split: AnyPath | None = None,
    licence: str | None = None,
    exogenous: Mapping[str, AnyPath] | None = None,
    labels: AnyPath | Mapping[str, AnyPath] | None = None,
    resample_tilt: AnyPath | None = None,
    tolerance_mm: Number | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    known: AnyPath | None = None,
    check_content: bool = False,
    header_progress: Progress | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """List the images under some folders.

    Every image is read completely, as training will read it. DICOM slices are grouped and must form one regular volume.
    Repeats are found by content (:mod:`medpixcl.data.duplicates`). Hidden files are skipped. Whatever is wrong with one
    file is the reason for leaving out that file; a file that ends the process that reads it costs no other.

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
        tolerance_mm: How far in mm a slice of a DICOM volume may lie from its place on the regular grid, see
            :func:`medpixcl.data.images.read_image`; the manifest keeps it with these volumes.
        workers: Number of processes that read the images; by default one for each CPU that may be used, and none for a
            few images. The manifest is the same for any number.
        scheduler: Address of a Dask scheduler whose workers read the images, such as ``tcp://10.0.0.1:8786``.
        known: Manifest of an earlier scan; images whose size and time of change are as in it are not read again.
        check_content: Compare the checksums of the files with those in ``known``, not size and time of change.
        header_progress: Function called with (done, total) after each file of which the scan found out what it is,
            before the first image is read.
        progress: Function called with (done, total) after each image.

    Returns:
        The manifest; its paths are relative to the folder scanned (or the common folder of several).

    Raises:
        ValueError: If a path does not exist, the landmark or split file is bad, a landmark lies outside its image, or
            several exogenous files or labels fit an image.
    """
    inputs = ScanInputs.checked(
        paths,
        spacing_mm=spacing_mm,
        landmarks=landmarks,
        split=split,
        licence=licence,
        exogenous=exogenous,
        labels=labels,
        resample_tilt=resample_tilt,
        tolerance_mm=tolerance_mm,
        known=known,
        check_content=check_content,
    )
    with _Scan(inputs, workers, scheduler, header_progress, progress) as found:
        return found.whole()


def scan_to_file(
    paths: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    num_parts: int | None = None,
    part_id: int | None = None,
    header_progress: Progress | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ManifestSummary:
    """List the images under some folders in a manifest file, without holding its entries in memory.

    If the file exists, images that did not change since it was written are not read again.

    Args:
        paths: Folders or image files to list.
        output: Manifest to write; with the suffix ``.jsonl`` as JSON Lines.
        workers: Number of processes that read the images, see :func:`scan`.
        scheduler: Address of a Dask scheduler, see :func:`scan`.
        num_parts: Number of parts of the scan, which several processes read, see :mod:`medpixcl.data.scan_parts`.
        part_id: Number of the part to read, counted from 0; None puts all parts together.
        header_progress: Function called with (done, total) after each file, before the first image is read.
        progress: Function called with (done, total) after each image.
        options: Further options of :func:`scan`.

    Returns:
        Summary of the manifest, or of the part.

    Raises:
        ValueError: For the reasons of :func:`scan`; if ``output`` has another suffix: no command would read it; if a
            part is missing, or was read with other options; or if tilted series are to be resampled in parts.
    """
    output = checked_file(output, "the manifest")
    if not is_manifest(output):
        raise ValueError(f"the manifest {output} has no suffix of one; expected {' or '.join(MANIFEST_SUFFIXES)}")
    check_part(part_id, num_parts)
    parts = None if num_parts is None else ScanParts(output, num_parts, part_id)
    if parts is not None and options.get("resample_tilt") is not None:
        raise ValueError(
            "with resample_tilt volumes are named in the order of all series, which no part knows; leave out "
            "num_parts, and give workers or scheduler to read in several processes"
        )
    if parts is not None:
        parts.check()
        output = parts.destination
    in_lines = output.suffix == LINES_SUFFIX
    base_dir = output.parent if in_lines else None
    inputs = ScanInputs.checked(paths, base_dir=base_dir, parts=parts, **{"known": output} | options)
    with _Scan(inputs, workers, scheduler, header_progress, progress) as found:
        summary = _write_lines(found, output) if in_lines else _write_whole(found, output)
    if parts is not None and part_id is None:
        parts.remove()
    return summary


def _write_whole(found: "_Scan", output: Path) -> ManifestSummary:
    manifest = found.whole()
    manifest.write(output)
    return manifest.summarised()


def _write_lines(found: "_Scan", output: Path) -> ManifestSummary:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", dir=output.parent) as spool:
        summary = _spooled(found.records(), spool)
        groups = found.groups()
        with replaced_atomically(output) as file:
            file.write(json_line(found.manifest.about))
            for line, group in itertools.zip_longest(spool, groups):  # rejected files stand behind the images
                file.write(line if group is None else _in_group(line, group, summary))
    return summary


class _Scan:
    """A scan of some inputs: :meth:`records` finds and reads the images, :meth:`groups` then compares them."""

    def __init__(
        self,
        inputs: ScanInputs,
        workers: int | None,
        scheduler: str | None,
        header_progress: Progress | None,
        progress: Progress | None,
    ) -> None:
        self._inputs, self._progress = inputs, _checked_progress("progress", progress)
        self._header_progress = _checked_progress("header_progress", header_progress)
        self.manifest = inputs.empty_manifest()
        self._rejections = Rejections(inputs.base_dir)
        self._prints = FingerprintTable()
        self._known_groups: list[str | None] = []
        self._declared: list[tuple[int, int]] = []
        self._open = ExitStack()
        self._reading = self._open.enter_context(ParallelReading(workers, scheduler))
        self._known = KnownImages(
            inputs.known,
            self.manifest.about,
            inputs.base_dir,
            by_content=inputs.check_content,
            needed=inputs.parts is not None and not inputs.is_part,
        )
        self._open.callback(self._known.close)

    def __enter__(self) -> "_Scan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def records(self) -> Iterator[Record]:
        """Read the images; yield their entries in order, then the rejected files by path."""
        images = find_images(self._inputs, self._known, self._reading, self._rejections, self._header_progress)
        of_tables = replace(self._inputs, points={}, splits=None) if self._inputs.is_part else self._inputs
        tables, maps = ScanTables(of_tables, images), ImageMaps(self._inputs, images)
        changed = bytearray()  # for each usable image
        images = images.where(lambda source: self._is_usable(source, maps, changed))
        for source, entry in self._entries(images, changed, maps):
            if (reason := tables.add_to(entry, source, len(self._prints))) is not None:
                self._rejections.add(source.place, reason)
                continue
            self._prints.add_text(entry["fingerprint"])
            yield section_of(entry["split"]), entry
        self._declared = tables.declared_repeats()
        for path, reason in tables.notes():
            self._rejections.add(path, reason)
        yield from ((REJECTED, one) for one in self._rejections.in_order())

    def whole(self) -> Manifest:
        """The manifest with all entries, in memory."""
        records = list(self.records())
        groups = iter(self.groups())
        for section, entry in records:
            if section != REJECTED:
                entry["duplicate_group"] = next(groups)
            getattr(self.manifest, section).append(entry)
        return self.manifest

    def groups(self) -> list[str | None]:
        """Name of the repeats of each image, in order, once all are read."""
        as_before = len(self._known_groups) == len(self._prints) == self._known.number
        if as_before and self._inputs.splits is None and len(self._inputs.known) == 1:
            return self._known_groups
        return duplicate_groups(self._prints, declared=self._declared)

    def _is_usable(self, source: Source, maps: ImageMaps, changed: bytearray) -> bool:
        """True for an image with a name and maps that can be used; notes if it has to be read. Others are rejected."""
        if not all(has_utf8_name(name, self._inputs.base_dir) for name in source.names):
            reason: str | None = "has a name that is not UTF-8; rename it."
        else:
            reason = maps.why_unusable(source)
        if reason is None:
            changed.append(not self._known.is_unchanged(source, maps.of(source)))
        else:
            self._rejections.add(source.place, reason)
        return reason is None

    def _entries(self, images: ImageList, changed: Sequence[int], maps: ImageMaps) -> Iterator[tuple[Source, Entry]]:
        """Entries of the images that can be read, or are known."""
        entries = ScanEntries(self._inputs, self._known, maps)
        tasks = (self._task(one, maps) for one, new in zip(images, changed, strict=True) if new)
        results = self._reading.examine(tasks, sum(changed))
        for done, (source, new) in enumerate(zip(images, changed, strict=True), start=1):
            task = self._task(source, maps)
            if not new:
                entry, group = entries.known(task)
                self._known_groups.append(group)
                yield source, entry
            elif isinstance(found := next(results), Unusable):
                self._rejections.add_image(source, found, task.maps)
            else:
                yield source, entries.read(task, found)
            if self._progress is not None:
                self._progress(done, len(images))

    def _task(self, source: Source, maps: ImageMaps) -> Examination:
        return Examination(source, self._inputs.spacing_mm, maps.of(source), self._inputs.tolerance_mm)


def _checked_progress(name: str, progress: Any) -> Callable[[int, int], None] | None:
    if progress is not None and not callable(progress):
        raise ValueError(f"{name} is {shown_value(progress)}; expected a function of (done, total).")
    return progress


def _spooled(records: Iterable[Record], spool: IO[str]) -> ManifestSummary:
    """Write the lines of a manifest to a file that is then read from its start."""
    summary = ManifestSummary()
    for section, entry in records:
        spool.write(entry_line(section, entry))
        if section == REJECTED:
            summary.reject(entry)
        else:
            summary.add(section, entry)
    spool.seek(0)
    return summary


def _in_group(line: str, group: str, summary: ManifestSummary) -> str:
    """The line of an entry with its group of repeats, which is counted."""
    entry = json.loads(line)
    summary.add_group(entry["section"], entry, group)
    return line_with_group(line, group)
