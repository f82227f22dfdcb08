"""What an earlier scan found, so that images which did not change need not be read again."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from medpixcl.data.examination import MapFile, content_sha256
from medpixcl.data.manifest import LINES_SUFFIX, REJECTED, SECTIONS, Entry, Manifest, moved_entry
from medpixcl.data.sources import Source

STAMP = "stamp"
_NEEDED = {"image", "spacing_mm", "shape", "modality", "sha256", "duplicate_group", "fingerprint"}
"""Keys of an entry that is taken over."""


def stamp_of(files: Sequence[Path], maps: Sequence[MapFile] = ()) -> str:
    """Size and time of the last change of an image's file, of several files a digest of these; its maps after a ``+``.

    Raises:
        OSError: If a file is gone.
    """
    image = _stamp(files)
    return f"{image}+{_stamp([one.path for one in maps])}" if maps else image


def _stamp(files: Sequence[Path]) -> str:
    if len(files) == 1:
        status = os.stat(files[0])  # noqa: PTH116 - a hundred thousand times
        return f"{status.st_size}-{status.st_mtime_ns}"
    lines = [f"{file.name} {_stamp([file])}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class KnownImages:
    """Entries of an earlier manifest by the files that they describe.

    Args:
        path: Manifest that may exist; it is ignored if it was made with other settings, or cannot be read.
        wanted: Settings and program of the scan to come, see :attr:`medpixcl.data.manifest.Manifest.about`.
        base_dir: Folder that the paths of the entries given back start from.
        by_content: Trust the checksum of an image's files, not their size and time of change.

    Attributes:
        files: The manifest's own file, which is no image.
    """

    def __init__(self, path: Path | None, wanted: Mapping[str, Any], base_dir: Path, *, by_content: bool) -> None:
        self._base_dir, self._by_content = base_dir, by_content
        self._folder = Path() if path is None else path.absolute().parent
        self.files = frozenset[Path]() if path is None else frozenset({path.absolute()})
        self._entries: dict[str, Callable[[], Entry]] = {}
        self._stamps: dict[str, str] = {}
        self._singles: dict[str, str] = {}
        self._rejected: dict[str, Entry] = {}
        self._lines: IO[bytes] | None = None
        if path is not None and path.is_file():
            try:
                self._read(path, wanted)
            except (ValueError, KeyError, TypeError, AttributeError):
                self._entries, self._stamps, self._singles, self._rejected = {}, {}, {}, {}

    def close(self) -> None:
        """Close the manifest; no more entries can be asked for."""
        if self._lines is not None:
            self._lines.close()

    @property
    def number(self) -> int:
        """Number of known images."""
        return len(self._entries)

    def is_unchanged_file(self, file: Path) -> bool:
        """True if this file was an image, or was rejected, and has the same size and time of change."""
        stamp = self._singles.get(str(file))
        try:
            return stamp is not None and not self._by_content and stamp == stamp_of([file])
        except OSError:
            return False

    def rejected(self, file: Path) -> Entry | None:
        """Record of an unchanged rejected file, None for any other."""
        return self._rejected.get(str(file))

    def is_unchanged(self, source: Source, maps: Sequence[MapFile]) -> bool:
        """True if an image and its maps need not be read; maps have no checksum and are read to compare contents."""
        known = self._stamps.get(_key(source.image))
        try:
            if known is None or not self._by_content:
                return known is not None and known == stamp_of(source.files, maps)
            return not maps and self._entries[_key(source.image)]()["sha256"] == content_sha256(source.files)
        except OSError:
            return False

    def entry(self, source: Source, maps: Sequence[MapFile]) -> Entry:
        """Entry of an unchanged image."""
        entry = moved_entry(self._entries[_key(source.image)](), self._folder, self._base_dir)
        return {**entry, STAMP: stamp_of(source.files, maps)}

    def _read(self, path: Path, wanted: Mapping[str, Any]) -> None:
        if path.suffix == LINES_SUFFIX:
            self._read_lines(path, wanted)
            return
        manifest = Manifest.read(path)
        if not _same_program(manifest.about, wanted):
            return
        for _, entry in manifest.entries():
            self._add(entry, partial(dict, entry))
        for record in manifest.rejected:
            self._add_rejected(record)

    def _read_lines(self, path: Path, wanted: Mapping[str, Any]) -> None:
        """Remember where each entry stands, not the entries."""
        with path.open("rb") as file:
            if not _same_program(json.loads(file.readline()), wanted):
                return
            self._lines = path.open("rb")
            place = file.tell()
            for line in file:
                one = json.loads(line)
                section = one.pop("section")
                if section in SECTIONS:
                    self._add(one, partial(self._entry_at, place))
                elif section == REJECTED:
                    self._add_rejected(one)
                place += len(line)

    def _entry_at(self, place: int) -> Entry:
        assert self._lines is not None
        self._lines.seek(place)
        entry = json.loads(self._lines.readline())
        del entry["section"]
        return entry

    def _add(self, entry: Entry, read: Callable[[], Entry]) -> None:
        if not (entry.get(STAMP) and entry.keys() >= _NEEDED):
            return
        image = entry["image"]
        files = [self._path(one) for one in ([image] if isinstance(image, str) else image)]
        self._entries["\n".join(files)] = read
        self._stamps["\n".join(files)] = entry[STAMP]
        stamp = entry[STAMP].partition("+")[0]
        if len(files) == 1 and "-" in stamp and not entry.get("modality"):  # of DICOM all headers are looked at
            self._singles[files[0]] = stamp

    def _add_rejected(self, record: Entry) -> None:
        if record.get(STAMP) and "reason" in record:
            path = self._path(record["path"])
            self._singles[path] = record[STAMP]
            self._rejected[path] = moved_entry(record, self._folder, self._base_dir)

    def _path(self, name: str) -> str:
        return os.path.normpath(os.path.join(self._folder, name))  # noqa: PTH118


def _key(image: Path | Sequence[Path]) -> str:
    return str(image) if isinstance(image, Path) else "\n".join(map(str, image))


def _same_program(about: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(about.get(key) == wanted.get(key) for key in ("created_with", "licence", "settings"))
