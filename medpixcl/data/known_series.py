"""DICOM slices that an earlier scan grouped, and which of them need not be opened again."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KnownVolume:
    """Slices that an earlier scan took for one volume, or refused.

    Attributes:
        series: Digest of their series (:func:`medpixcl.data.sources.series_digest`).
        folder: Folder that is the volume's alone, or empty.
        files: The slices, where they have no folder of their own.
        stamp: Size and time of their last change.
        number: Number of the volume among the known images; None for slices that were refused.
        record: What the manifest says of slices that were refused; empty for others.
        made: File that the volume was resampled to.
        made_stamp: Size and time of the last change of that file.
        modality: DICOM modality.
        part: Number of the manifest that names it, of those of several parts of a scan.
    """

    series: str
    folder: str
    files: tuple[str, ...]
    stamp: str
    number: int | None = None
    record: dict[str, Any] = field(default_factory=dict)
    made: str = ""
    made_stamp: str = ""
    modality: str = ""
    part: int = 0


@dataclass(frozen=True)
class SettledVolume:
    """A known volume, and the slices that it has as before."""

    volume: KnownVolume
    files: tuple[str, ...]


class KnownSeries:
    """Decides which volumes are as they were.

    Slices of one series are grouped together, and whether a folder is a volume's alone depends on its other files. So a
    volume is settled if all that was known of its series is unchanged, and all files of its folders are; and if no two
    parts of a scan have slices of its series, as neither knew of the other's.

    Args:
        stamp_of: Function that gives the stamp of some files.
    """

    def __init__(self, stamp_of: Callable[[Sequence[str]], str]) -> None:
        self._stamp_of = stamp_of
        self._volumes: list[KnownVolume] = []

    def __len__(self) -> int:
        return len(self._volumes)

    def add(self, volume: KnownVolume) -> None:
        """Remember a volume."""
        self._volumes.append(volume)

    def settled(self, names: Sequence[str], disturbed: Iterable[str]) -> list[SettledVolume]:
        """Volumes that need not be opened.

        Args:
            names: Files that are there, but for those that are known to be images of their own.
            disturbed: Folders of which other files are gone.
        """
        unchanged: list[SettledVolume] = []
        changed: list[SettledVolume] = []
        for one in self._found(names):
            (unchanged if self._is_unchanged(one) else changed).append(one)
        as_before = {name for one in unchanged for name in one.files}
        stirred = {*disturbed, *(_folder(name) for name in names if name not in as_before)}
        stirred |= {folder for one in changed for folder in (one.volume.folder, *map(_folder, one.volume.files))}
        opened = {one.volume.series for one in changed} | self._divided()
        opened |= {one.volume.series for one in unchanged if not stirred.isdisjoint(map(_folder, one.files))}
        return [one for one in unchanged if one.volume.series not in opened]

    def _divided(self) -> set[str]:
        """Series with slices in several parts of a scan."""
        parts = {(one.series, one.part) for one in self._volumes}
        return {series for series, number in Counter(series for series, _ in parts).items() if number > 1}

    def _found(self, names: Sequence[str]) -> list[SettledVolume]:
        """The known volumes with the slices that each has now."""
        listed = {name for one in self._volumes for name in one.files}
        own = {one.folder for one in self._volumes if one.folder}
        inside: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if name not in listed and (folder := _folder(name)) in own:
                inside[folder].append(name)
        return [SettledVolume(one, one.files or tuple(inside[one.folder])) for one in self._volumes]

    def _is_unchanged(self, one: SettledVolume) -> bool:
        volume = one.volume
        try:
            same = bool(one.files) and self._stamp_of(one.files) == volume.stamp
            return same and (not volume.made or self._stamp_of([volume.made]) == volume.made_stamp)
        except OSError:
            return False


def _folder(name: str) -> str:
    return os.path.dirname(name)  # noqa: PTH120 - a hundred thousand times
