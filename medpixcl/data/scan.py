"""Find the images of a folder, check every one, and list them; nothing is left out without a reason."""

import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import AnyPath, Number, Progress
from medpixcl.coordinates import image_affine
from medpixcl.data.atomic import replaced_atomically
from medpixcl.data.dicom_geometry import checked_tolerance
from medpixcl.data.dicom_header import is_dicom
from medpixcl.data.duplicates import Fingerprint, duplicate_groups
from medpixcl.data.examination import Examination, MapFile, Usable
from medpixcl.data.exogenous import ExogenousFiles
from medpixcl.data.gantry_tilt import TiltResampling
from medpixcl.data.image_keys import why_unclear
from medpixcl.data.images import log_notice
from medpixcl.data.known_images import STAMP, KnownImages, stamp_of
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import (
    LINES_SUFFIX,
    MANIFEST_SUFFIXES,
    REJECTED,
    Entry,
    Manifest,
    entry_line,
    is_manifest,
    json_line,
)
from medpixcl.data.manifest_paths import has_utf8_name, relative_path, shown_path
from medpixcl.data.manifest_summary import ManifestSummary
from medpixcl.data.parallel_reading import examine_all
from medpixcl.data.paths import checked_file, checked_path, checked_paths, shown_value
from medpixcl.data.pixels import SpacingMM, checked_spacing
from medpixcl.data.scan_tables import ScanTables
from medpixcl.data.sources import Source, attached_files, group_files, in_file_order, visible_files
from medpixcl.data.splits import SplitFile, section_of
from medpixcl.data.unusable import Unusable, unusable
from medpixcl.data.volumes import is_header
from medpixcl.data.wording import worded

log = logging.getLogger(__name__)
_SHOWN = 5

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
        progress: Function called with (done, total) after each image.

    Returns:
        The manifest; its paths are relative to the folder scanned (or the common folder of several).

    Raises:
        ValueError: If a path does not exist, the landmark or split file is bad, a landmark lies outside its image, or
            several exogenous files or labels fit an image.
    """
    found = _Scan(
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
    records = list(found.records(workers, scheduler, progress))
    groups = iter(found.groups())
    for section, entry in records:
        if section != REJECTED:
            entry["duplicate_group"] = next(groups)
        getattr(found.manifest, section).append(entry)
    return found.manifest


def scan_to_file(
    paths: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
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
        progress: Function called with (done, total) after each image.
        options: Further options of :func:`scan`.

    Returns:
        Summary of the manifest.

    Raises:
        ValueError: For the reasons of :func:`scan`, or if ``output`` has another suffix: no command would read it.
    """
    output = checked_file(output, "the manifest")
    if not is_manifest(output):
        raise ValueError(f"the manifest {output} has no suffix of one; expected {' or '.join(MANIFEST_SUFFIXES)}")
    if output.suffix != LINES_SUFFIX:
        manifest = scan(paths, workers=workers, scheduler=scheduler, progress=progress, **{"known": output} | options)
        manifest.write(output)
        return manifest.summarised()
    found = _Scan(paths, target=output.parent, **{"known": output} | options)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", dir=output.parent) as spool:
        for section, entry in found.records(workers, scheduler, progress):
            spool.write(entry_line(section, entry))
        spool.seek(0)
        with replaced_atomically(output) as file:
            file.write(json_line(found.manifest.about))
            return _copy_with_groups(spool, found.groups(), file)


class _Scan:
    """A scan: its files are listed and grouped, their headers read; :meth:`records` reads the pixels."""

    def __init__(
        self,
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
        known: AnyPath | None = None,
        check_content: bool = False,
        target: Path | None = None,
    ) -> None:
        roots = [one.absolute() for one in checked_paths(paths, "the folder to scan")]
        common = _common_folder(roots)
        self.base_dir = base_dir = common if target is None else target.absolute()
        sizes = None if spacing_mm is None else checked_spacing(spacing_mm)
        self.spacing_mm, self.licence = spacing_mm, licence
        self.tolerance_mm = checked_tolerance(tolerance_mm)
        readers = landmarks if isinstance(landmarks, Mapping) else {} if landmarks is None else {None: landmarks}
        self.points = {name: read_landmarks(file) for name, file in readers.items()}
        self.splits = None if split is None else SplitFile(checked_path(split, "the split file"))
        if not isinstance(exogenous or {}, Mapping):
            raise ValueError(f"exogenous is {shown_value(exogenous)}; expected a mapping of names to folders")
        self.channels = [ExogenousFiles(name, folder) for name, folder in (exogenous or {}).items()]
        named = labels if isinstance(labels, Mapping) else {"label": labels} if labels is not None else {}
        self.labels = [ExogenousFiles(name, folder, what="label") for name, folder in named.items()]
        self.one_label_map = labels is not None and not isinstance(labels, Mapping)
        settings: dict[str, Any] = {
            "split": None if self.splits is None else self.splits.path.name,
            "spacing_mm": sizes[0] if sizes and len(sizes) == 1 else sizes,
            "tolerance_mm": self.tolerance_mm,
        }
        settings |= {
            key: [one.name for one in of] for key, of in (("exogenous", self.channels), ("labels", self.labels))
        }
        self.manifest = Manifest(name=common.name, licence=licence, base_dir=base_dir, settings=settings)
        earlier = None if known is None else checked_path(known, "the earlier manifest")
        self.known = KnownImages(earlier, self.manifest.about, base_dir, by_content=check_content)
        self._rejected: list[Entry] = []
        self._prints: list[str] = []
        self._known_groups: list[str | None] = []
        self._counts: dict[str, Counter[Path | None]] = {}
        self._declared: list[tuple[int, int]] = []
        self._roots = [*roots, common]
        self._resampled: set[Path] = set()
        folder = None if resample_tilt is None else checked_path(resample_tilt, "the folder of resampled series")
        resampled = None if folder is None else folder.absolute()
        sources = self._grouped(roots, resampled)
        if resampled is not None:
            sources = self._untilted(sources, TiltResampling(resampled, common, self.tolerance_mm))
        self._places = [source.place for source in sources]
        self._maps = self._maps_of_images()
        self.sources = [source for source in sources if self._may_be_read(source)]

    def records(self, workers: int | None, scheduler: str | None, progress: Progress | None) -> Iterator[Record]:
        """Read the images; yield their entries in order, then the rejected files by path."""
        with closing(self.known):
            yield from self._images(workers, scheduler, progress)
        yield from ((REJECTED, one) for one in sorted(self._rejected, key=lambda one: one["path"]))

    def _images(self, workers: int | None, scheduler: str | None, progress: Progress | None) -> Iterator[Record]:
        tables = ScanTables(self.points, self.splits, self._places)
        tasks = [
            Examination(source, self.spacing_mm, self._maps_at(source), self.tolerance_mm) for source in self.sources
        ]
        changed = [task for task in tasks if not self.known.is_unchanged(task.source, task.maps)]
        results = zip(changed, examine_all(changed, workers=workers, scheduler=scheduler), strict=True)
        upcoming = next(results, None)
        for done, task in enumerate(tasks, start=1):
            if upcoming is not None and task is upcoming[0]:
                entry = self._read_entry(*upcoming)
                upcoming = next(results, None)
            else:
                entry = self._known_entry(task)
            if entry is not None and (reason := self._add_tables(task.source.place, entry, tables)) is not None:
                self._reject(task.source.place, reason)
            elif entry is not None:
                self._prints.append(entry["fingerprint"])
                yield section_of(entry["split"]), entry
            if progress is not None:
                progress(done, len(tasks))
        self._declared = tables.declared_repeats()
        self._note_tables(tables)

    def groups(self) -> list[str | None]:
        """Name of the repeats of each image, in order, once all are read."""
        if self.splits is None and len(self._known_groups) == len(self._prints) == self.known.number:
            return self._known_groups  # the same images as before
        return duplicate_groups(list(map(Fingerprint.from_text, self._prints)), declared=self._declared)

    def _grouped(self, roots: Sequence[Path], left_out: Path | None) -> list[Source]:
        """Images of all files outside of a folder; of those that did not change the headers are not read again."""
        tables: list[Any] = [*self.points.values(), *([] if self.splits is None else [self.splits])]
        beside = {table.path.absolute() for table in tables}
        beside |= {file for channel in (*self.channels, *self.labels) for file in channel.files}
        beside |= self.known.files
        files = [path for path in visible_files(roots, list_closed=True) if path not in beside]
        if left_out is not None:
            files = [path for path in files if not path.is_relative_to(left_out)]
        attached = attached_files(files)
        settled = {path for path in files if path not in attached and self.known.is_unchanged_file(path)}
        self._rejected += [record for path in files if path in settled and (record := self.known.rejected(path))]
        sources, refused = group_files([path for path in files if path not in settled])
        for one in refused:
            self._reject_reading(one.path, one.reason, lasting=one.lasting)
        sources += [Source(path, (path,)) for path in files if path in settled and not self.known.rejected(path)]
        return in_file_order(sources, files)

    def _untilted(self, sources: Sequence[Source], resample: TiltResampling) -> list[Source]:
        """The images, with resampled volumes in the place of the series with gantry tilt."""
        kept: list[Source] = []
        for source in sources:
            try:
                kept.append(volume := resample(source))
                self._resampled |= {volume.place} - {source.place}
            except Exception as error:  # damaged slices make the readers raise any kind of error
                self._reject_source(source, unusable(source.place, error))
        return kept

    def _maps_of_images(self) -> dict[str, dict[Path, Path | None]]:
        """Files of every channel and label by image; None where an image has none of its own."""
        found: dict[str, dict[Path, Path | None]] = {}
        for channel in (*self.channels, *self.labels):
            files = {place: channel.find(place, self._roots) for place in self._places}
            found[f"{channel.what} {channel.name}"] = files
        return found

    def _maps_at(self, source: Source) -> tuple[MapFile, ...]:
        """Maps of an image that has all of them."""
        kinds = [*((one, "continuous") for one in self.channels), *((one, "categorical") for one in self.labels)]
        files = [self._maps[f"{one.what} {one.name}"][source.place] for one, _ in kinds]
        return tuple(MapFile(one.name, file, kind) for (one, kind), file in zip(kinds, files, strict=True) if file)

    def _may_be_read(self, source: Source) -> bool:
        """True for an image with a name and maps that can be used; the others are rejected."""
        if not all(has_utf8_name(file, self.base_dir) for file in source.files):
            self._reject(source.place, "has a name that is not UTF-8; rename it.")
            return False
        for channel in (*self.channels, *self.labels):
            files = self._maps[f"{channel.what} {channel.name}"]
            file = files[source.place]
            if file is None:
                self._reject(source.place, f"has no {channel.what} {channel.name!r} in {channel.folder}; add its file.")
                return False
            if (shared := self._users(channel)[file]) > 1:
                name = os.path.relpath(file, channel.folder)
                self._reject(
                    source.place,
                    f"is one of {shared} images whose {channel.what} {channel.name!r} could be {name}; give both the "
                    "same folders.",
                )
                return False
        return True

    def _users(self, channel: ExogenousFiles) -> Counter[Path | None]:
        """Number of images that each file of a channel fits."""
        name = f"{channel.what} {channel.name}"
        if name not in self._counts:
            self._counts[name] = Counter(self._maps[name][place] for place in self._places)
        return self._counts[name]

    def _known_entry(self, task: Examination) -> Entry:
        entry = self.known.entry(task.source, task.maps)
        self._known_groups.append(entry["duplicate_group"])
        kept = {key: value for key, value in entry.items() if key not in ("exogenous", "label", "group")}
        return self._with_maps({**kept, "split": None, "duplicate_group": None, "landmarks": None}, task)

    def _read_entry(self, task: Examination, result: Usable | Unusable) -> Entry | None:
        """Entry of an image that was read; None and a rejection if it cannot be used."""
        if isinstance(result, Unusable):
            self._reject_source(task.source, result, maps=task.maps)
            return None
        entry: Entry = {
            "image": relative_path(task.source.image, self.base_dir),
            "spacing_mm": result.spacing_mm,
            "spacing_source": result.spacing_source,
            "shape": list(result.shape),
            "modality": result.modality,
            "sha256": result.sha256,
            "licence": self.licence,
            "split": None,
            "duplicate_group": None,
            "landmarks": None,
            STAMP: stamp_of(task.source.files, task.maps),
            "fingerprint": result.fingerprint.to_text(),
        }
        if result.notice:
            log_notice(str(task.source.files[0]), result.notice)
            entry["notice"] = result.notice
        if self.tolerance_mm is not None and len(result.shape) == 3 and is_dicom(task.source.files[0]):
            entry["tolerance_mm"] = self.tolerance_mm
        if not _is_plain(result):
            entry["affine"] = [list(row) for row in result.affine[:3]]
        return self._with_maps(entry, task)

    def _with_maps(self, entry: Entry, task: Examination) -> Entry:
        """Name the exogenous channels and labels of an image."""
        paths = [relative_path(one.path, self.base_dir) for one in task.maps]
        if self.channels:
            entry["exogenous"] = dict(zip([one.name for one in self.channels], paths, strict=False))
        if self.labels:
            labels = paths[len(self.channels) :]
            entry["label"] = labels[0] if self.one_label_map else labels
        return entry

    def _add_tables(self, place: Path, entry: Entry, tables: ScanTables) -> str | None:
        """Name landmark files and split of an image; return the reason if it has no split."""
        for reader, points in self.points.items():
            if (key := tables.key(points, place)) is not None:
                self._refuse_stored_voxels(points, key, place)
                points.for_image(place, _affine_of(entry), entry["shape"])
                file = relative_path(points.path.absolute(), self.base_dir)
                entry["landmarks"] = file if reader is None else {**(entry["landmarks"] or {}), reader: file}
                tables.use(points, place)
        if self.splits is None:
            return None
        key = tables.key(self.splits, place)
        if key is None:
            return f"is not named in {self.splits.path.name}; give it a split."
        tables.use(self.splits, place, len(self._prints))
        entry["split"] = self.splits.splits[key]
        return None

    def _refuse_stored_voxels(self, points: LandmarkFile, key: str, place: Path) -> None:
        """Refuse voxels that a table counts in a tilted series, of which the resampled volume has others."""
        if place in self._resampled and not key.endswith(place.suffix) and points.in_voxels(key):
            raise ValueError(
                f"{points.path}: {key!r} has landmarks in voxels of a series with gantry tilt, which was resampled; "
                f"give them in mm, or mark them on {place} and name that file."
            )

    def _note_tables(self, tables: ScanTables) -> None:
        """Reject, as lines of its table, what a landmark or split file says of no image, or of several."""
        for table, what in [*((one, "landmarks") for one in self.points.values()), (self.splits, "a split")]:
            if table is None:
                continue
            unclear = tables.unclear(table)
            shared = tables.shared(table)
            absent = [key for key in table.images if key not in {*tables.used(table), *unclear, *shared}]
            reasons = [why_unclear(key, images) for key, images in unclear.items()]
            reasons += [f"names {key!r}, a folder of several volumes; give each a folder of its own." for key in shared]
            if absent:
                shown = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
                reasons.append(f"gives {what} to {len(absent)} image(s) that are not among those taken: {shown}.")
            for reason in reasons:
                self._reject(table.path.absolute(), reason)

    def _reject(self, path: Path, reason: str) -> None:
        self._rejected.append({"path": shown_path(path, self.base_dir), "reason": worded(reason)})

    def _reject_reading(self, path: Path, reason: str, *, lasting: bool) -> None:
        """Reject a file; if the reason lies in this file alone, the next scan need not look at it until it changes."""
        self._reject(path, reason)
        try:
            if lasting and path.is_file() and not (is_header(path) or is_dicom(path)):  # these depend on other files
                self._rejected[-1][STAMP] = stamp_of([path])
        except OSError:
            log.debug("%s cannot be opened", path.name)

    def _reject_source(self, source: Source, found: Unusable, maps: Sequence[MapFile] = ()) -> None:
        if found.trace:
            log.debug("%s: %s", source.place.name, found.trace)
        inside = source.is_series and found.path in source.files
        reason = f"slice {found.path.name} {found.reason}" if inside else found.reason
        alone = len(source.files) == 1 and not source.is_series and not maps
        self._reject_reading(source.place, reason, lasting=found.lasting and alone)
        if source.is_series:
            self._rejected[-1]["files"] = [shown_path(path, path.parent) for path in source.files]


def _copy_with_groups(spool: Iterable[str], groups: Iterable[str | None], file: IO[str]) -> ManifestSummary:
    """Copy the lines of a manifest, each entry with its group of repeats."""
    summary, names = ManifestSummary(), iter(groups)
    for line in spool:
        entry = json.loads(line)
        if (section := entry.pop("section")) == REJECTED:
            summary.rejected += 1
            file.write(line)
            continue
        entry["duplicate_group"] = next(names)
        summary.add(section, entry)
        file.write(entry_line(section, entry))
    return summary


def _common_folder(roots: Sequence[Path]) -> Path:
    for root in roots:
        if not root.exists():
            raise ValueError(f"{root} does not exist; expected a folder or an image.")
    if not roots:
        raise ValueError("no path to scan; give a folder or an image.")
    common = Path(os.path.commonpath(roots))
    return common if common.is_dir() else common.parent


def _is_plain(found: Usable) -> bool:
    """True if the affine follows from the spacing alone, as that of a picture does."""
    if len(found.shape) != 2:
        return False
    return torch.allclose(torch.tensor(found.affine, dtype=torch.float64), image_affine(found.spacing_mm), atol=1e-6)


def _affine_of(entry: Entry) -> Float[Tensor, "4 4"]:
    if "affine" not in entry:
        return image_affine(entry["spacing_mm"])
    return torch.tensor([*entry["affine"], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
