"""The files that a scan leaves out, with the reasons."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from medpixcl.data.dicom_header import is_compressed_dicom
from medpixcl.data.examination import MapFile
from medpixcl.data.known_images import STAMP, files_stamp
from medpixcl.data.manifest import SERIES, Entry
from medpixcl.data.manifest_paths import shown_path
from medpixcl.data.sources import Source
from medpixcl.data.unusable import Unusable
from medpixcl.data.volumes import is_header
from medpixcl.data.wording import worded

log = logging.getLogger(__name__)


class Rejections:
    """Collects the rejected files of one scan.

    Args:
        base_dir: Folder that their paths start from.
    """

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._records: list[Entry] = []

    def in_order(self) -> list[Entry]:
        """The records, by path."""
        return sorted(self._records, key=lambda one: (one["path"], one.get("files", []), one["reason"]))

    def take_over(self, record: Entry) -> None:
        """Reject what an earlier scan rejected, for the same reason."""
        self._records.append(record)

    def add(self, path: Path, reason: str) -> None:
        """Reject a file for a reason that may lie outside of it."""
        self._records.append({"path": shown_path(path, self._base_dir), "reason": worded(reason)})

    def add_file(self, found: Unusable) -> None:
        """Reject a file that is no image, or a slice that is set aside."""
        _log_trace(found)
        self.add(found.path, found.reason)
        self._stamp([found.path], found)

    def add_image(self, source: Source, found: Unusable, maps: Sequence[MapFile] = ()) -> None:
        """Reject an image that cannot be read, or does not fit its maps."""
        _log_trace(found)
        slices = source.made_from or source
        inside = slices.is_series and found.path in slices.files
        self.add(slices.place, f"slice {found.path.name} {found.reason}" if inside else found.reason)
        if not maps and not any(map(is_compressed_dicom, slices.files[:1])):  # the decoder may come later
            self._stamp(slices.files, replace(found, series=slices.series))
        if slices.is_series:
            folder = slices.place if len(slices.files) > 1 else slices.place.parent
            self._records[-1]["files"] = [shown_path(path, folder) for path in slices.files]

    def _stamp(self, files: Sequence[Path], found: Unusable) -> None:
        """If the reason lies in the files alone, the next scan need not open them until they change."""
        alone = bool(found.series) or (len(files) == 1 and not is_header(files[0]))  # a header needs another file
        with suppress(OSError):
            if found.lasting and alone and all(path.is_file() for path in files):
                self._records[-1] |= {STAMP: files_stamp(files)} | ({SERIES: found.series} if found.series else {})


def _log_trace(found: Unusable) -> None:
    if found.trace:
        log.debug("%s: %s", found.path.name, found.trace)
