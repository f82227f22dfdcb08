"""What an earlier scan found, so that files which did not change need not be opened again."""

import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from medpixcl._json import parsed_json
from medpixcl.data.duplicates import is_fingerprint
from medpixcl.data.examination import MapFile, content_sha256
from medpixcl.data.known_series import KnownSeries, KnownVolume, SettledVolume
from medpixcl.data.manifest import LINES_SUFFIX, MADE_FROM, REJECTED, SECTIONS, SERIES, Entry, Manifest, moved_entry
from medpixcl.data.manifest_checks import checked_entry, checked_record
from medpixcl.data.sources import Source
from medpixcl.limits import regular_file

STAMP = "stamp"
_NEEDED = {"image", "spacing_mm", "shape", "modality", "sha256", "duplicate_group", "fingerprint"}
"""Keys of an entry that is taken over."""
_FROM, _MAPS = "<", "+"
"""What stands in a stamp before the part of the series that a volume was resampled from, and that of the maps."""


def stamp_of(source: Source, maps: Sequence[MapFile] = ()) -> str:
    """Size and time of the last change of an image's file, of several files a digest of these.

    The slices that a volume was resampled from follow after a ``<``, the maps of an image after a ``+``.

    Raises:
        OSError: If a file is gone.
    """
    image = files_stamp(source.names)
    if source.made_from is not None:
        image += _FROM + files_stamp(source.made_from.names)
    return f"{image}{_MAPS}{files_stamp([one.path for one in maps])}" if maps else image


def files_stamp(files: Sequence[Path | str]) -> str:
    """Size and time of the last change of a file, of several files a digest of these.

    Raises:
        OSError: If a file is gone.
    """
    if len(files) == 1:
        status = os.stat(files[0])  # noqa: PTH116 - a hundred thousand times
        return f"{status.st_size}-{status.st_mtime_ns}"
    lines = [f"{os.path.basename(file)} {files_stamp([file])}\n" for file in sorted(map(str, files))]  # noqa: PTH119
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def current_sha256(entry: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Checksum of an image as it lies on the disk: the entry's own where its stamp says so, else of its files.

    Args:
        entry: Entry of a manifest.
        files: All files of the image.

    Raises:
        OSError: If a file is gone.
    """
    stamp = re.split(f"[{_FROM}{_MAPS}]", str(entry.get(STAMP, "")))[0]
    return str(entry.get("sha256", "")) if stamp == files_stamp(files) else content_sha256(files)


class KnownImages:
    """Entries of an earlier manifest, or of the parts of a scan, by the files that they describe.

    Of an image only its path, a number and some integers are held; the entries of JSON Lines stay in the file.

    Args:
        paths: Manifests in one folder that may exist; they are ignored if they were made with other settings, or cannot
            be read.
        wanted: Settings and program of the scan to come, see :attr:`medpixcl.data.manifest.Manifest.about`.
        base_dir: Folder that the paths of the entries given back start from.
        by_content: Trust the checksum of an image's files, not their size and time of change.
        needed: Refuse a manifest instead of ignoring it.

    Attributes:
        files: The manifests' own files, which are no images.
        series: DICOM slices that were grouped.

    Raises:
        ValueError: If a manifest that is needed cannot be used.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        wanted: Mapping[str, Any],
        base_dir: Path,
        *,
        by_content: bool,
        needed: bool = False,
    ) -> None:
        self._base_dir, self._by_content = base_dir, by_content
        self._folder = paths[0].absolute().parent if paths else Path()
        self._moves = self._folder != base_dir
        self.files = frozenset(str(path.absolute()) for path in paths)
        self._forget()
        for path in paths:
            if not self._takes(path, wanted):
                self._forget()
                if needed:
                    raise ValueError(
                        f"{path} is damaged, or was scanned with other options or another version than this scan; scan "
                        "this part again"
                    )

    def _takes(self, path: Path, wanted: Mapping[str, Any]) -> bool:
        """Read a manifest; True if its entries can be taken over."""
        try:
            return path.is_file() and self._read(path, wanted)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False

    def _forget(self) -> None:
        self._files: list[Path] = []
        self._lines: IO[bytes] | None = None
        self._open_part = 0
        self._parts = array("I")
        self.series = KnownSeries(files_stamp)
        self._entries: list[Entry] = []
        self._places = array("Q")
        self._numbers: dict[str, int] = {}
        self._stamps = array("q")
        self._of_maps: dict[int, str] = {}
        self._settled = bytearray()
        self._grouped: set[int] = set()
        self._rejected: dict[str, Entry] = {}
        self._met: set[str] = set()

    def close(self) -> None:
        """Close the manifest that is open; no more entries can be asked for."""
        if self._lines is not None:
            self._lines.close()

    @property
    def number(self) -> int:
        """Number of known images."""
        return len(self._numbers)

    def settles(self, name: str) -> bool:
        """True if this file was an image of its own, or was rejected, and has the same size and time of change."""
        number, record = self._numbers.get(name), self._rejected.get(name)
        try:
            if self._by_content or (number is None and record is None):
                return False
            stamp = files_stamp([name])
        except OSError:
            return False
        if number is None:
            self._met.add(name)
            return record is not None and record[STAMP] == stamp
        self._settled[number] = hash(stamp) == self._stamps[number]
        return bool(self._settled[number])

    def rejected(self, name: str) -> Entry | None:
        """Record of an unchanged rejected file; None for any other, and for what another part found to be an image."""
        return None if name in self._numbers else self._rejected.get(name)

    def settled_series(self, names: Sequence[str]) -> list[SettledVolume]:
        """Volumes of slices that need not be opened, see :meth:`medpixcl.data.known_series.KnownSeries.settled`."""
        if self._by_content or not len(self.series):
            return []
        gone = {name for name, n in self._numbers.items() if not self._settled[n] and n not in self._grouped}
        gone |= self._rejected.keys() - self._met
        return self.series.settled(names, {os.path.dirname(name) for name in gone})  # noqa: PTH120

    def settle(self, number: int) -> None:
        """Note that the files of an image were found as they were."""
        self._settled[number] = True

    def is_unchanged(self, source: Source, maps: Sequence[MapFile]) -> bool:
        """True if an image and its maps need not be read; maps have no checksum and are read to compare contents."""
        if (number := self._numbers.get(source.key)) is None:
            return False
        try:
            if self._by_content:
                return not maps and self._entry(number)["sha256"] == content_sha256(source.files)
            image = bool(self._settled[number]) or self._stamps[number] == hash(stamp_of(source))
            return image and self._of_maps.get(number, "") == (files_stamp([one.path for one in maps]) if maps else "")
        except OSError:
            return False

    def entry(self, source: Source, maps: Sequence[MapFile]) -> Entry:
        """Entry of an unchanged image, which the caller may change."""
        number = self._numbers[source.key]
        entry = self._entry(number)
        if self._moves:
            entry = moved_entry(entry, self._folder, self._base_dir)
        if not self._settled[number]:
            entry[STAMP] = stamp_of(source, maps)
        if source.series:
            entry[SERIES] = source.series
        return entry

    def _entry(self, number: int) -> Entry:
        """A new dictionary of the entry as it stands in the manifest."""
        if not self._files:
            return dict(self._entries[number])
        lines = self._opened(self._parts[number])
        lines.seek(self._places[number])
        entry = json.loads(lines.readline().decode())  # faster than from bytes
        del entry["section"]
        return entry

    def _opened(self, part: int) -> IO[bytes]:
        """One of the manifests, of which one is open at a time: there may be more than a process may open."""
        if self._lines is None or part != self._open_part:
            self.close()
            self._lines, self._open_part = self._files[part].open("rb"), part
        return self._lines

    def _read(self, path: Path, wanted: Mapping[str, Any]) -> bool:
        """Take over a manifest; False if it was made with other settings."""
        if path.suffix == LINES_SUFFIX:
            return self._read_lines(path, wanted)
        manifest = Manifest.read(path)
        if not _same_program(manifest.about, wanted):
            return False
        for _, entry in manifest.entries():
            if self._add(entry):
                self._entries.append(entry)
        for record in manifest.rejected:
            self._add_rejected(record)
        return True

    def _read_lines(self, path: Path, wanted: Mapping[str, Any]) -> bool:
        """Remember where each entry stands, not the entries."""
        with regular_file(path).open("rb") as file:
            if not _same_program(parsed_json(file.readline()), wanted):
                return False
            self._files.append(path)
            self._opened(len(self._files) - 1)  # now: another scan may replace it
            place = file.tell()
            for line in file:
                one = parsed_json(line.decode())
                section = one.pop("section")
                if section in SECTIONS and self._add(checked_entry(path, "an entry", one)):
                    self._places.append(place)
                    self._parts.append(len(self._files) - 1)
                elif section == REJECTED:
                    self._add_rejected(checked_record(path, "a record", one))
                place += len(line)
        return True

    def _add(self, entry: Entry) -> bool:
        if not (entry.get(STAMP) and entry.keys() >= _NEEDED and is_fingerprint(entry["fingerprint"])):
            return False
        names = self._paths(entry["image"])
        number, key = len(self._stamps), "\n".join(names)
        image, _, maps = entry[STAMP].partition(_MAPS)
        if maps:
            self._of_maps[number] = maps
        self._numbers[key] = number
        self._stamps.append(hash(image))
        self._settled.append(False)
        if entry.get(SERIES):
            self._add_series(entry, number, image)
        return True

    def _add_series(self, entry: Entry, number: int, stamp: str) -> None:
        made, _, slices = stamp.partition(_FROM) if MADE_FROM in entry else ("", "", stamp)
        image = entry[MADE_FROM] if made else entry["image"]
        names = self._paths(image)
        folder, files = (names[0], ()) if isinstance(image, str) else ("", tuple(names))
        of = self._path(entry["image"]) if made else ""
        modality = entry["modality"] or ""
        self.series.add(
            KnownVolume(
                entry[SERIES],
                folder,
                files,
                slices,
                number,
                made=of,
                made_stamp=made,
                modality=modality,
                part=len(self._files),
            )
        )
        self._grouped.add(number)

    def _add_rejected(self, record: Entry) -> None:
        if not (record.get(STAMP) and "reason" in record):
            return
        path, moved = self._path(record["path"]), moved_entry(record, self._folder, self._base_dir)
        if not record.get(SERIES):
            self._rejected[path] = moved
            return
        names = record.get("files", [])
        folder = path if len(names) > 1 else os.path.dirname(path)  # noqa: PTH120
        files = tuple(os.path.join(folder, name) for name in names) or (path,)  # noqa: PTH118
        self.series.add(KnownVolume(record[SERIES], "", files, record[STAMP], record=moved, part=len(self._files)))

    def _paths(self, image: str | Iterable[str]) -> list[str]:
        return [self._path(one) for one in ([image] if isinstance(image, str) else image)]

    def _path(self, name: str) -> str:
        return os.path.normpath(os.path.join(self._folder, name))  # noqa: PTH118


def _same_program(about: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(about.get(key) == wanted.get(key) for key in ("created_with", "licence", "settings"))
