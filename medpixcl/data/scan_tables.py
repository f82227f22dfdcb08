"""What the landmark and split files of a scan say of its images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.splits import SplitFile


class ScanTables:
    """Which keys of the landmark and split files name which images, and which of them were used."""

    def __init__(self, points: Mapping[Any, LandmarkFile], splits: SplitFile | None, places: Sequence[Path]) -> None:
        self._splits = splits
        tables: list[Any] = [*points.values(), *([] if splits is None else [splits])]
        self._assigned = {id(table): table.assign(places) for table in tables}
        self._used: dict[int, dict[str, int]] = {id(table): {} for table in tables}
        self._of_several = {place for place, number in Counter(places).items() if number > 1}

    def key(self, table: LandmarkFile | SplitFile, place: Path) -> str | None:
        """Key of an image, None if the table does not name it, or gives landmarks to a folder of several volumes."""
        if place in self._of_several and isinstance(table, LandmarkFile):
            return None
        return self._assigned[id(table)].keys.get(place)

    def shared(self, table: LandmarkFile | SplitFile) -> Sequence[str]:
        """Keys of folders of several volumes, of which one only can have the landmarks."""
        if not isinstance(table, LandmarkFile):
            return []
        return [key for place, key in self._assigned[id(table)].keys.items() if place in self._of_several]

    def use(self, table: LandmarkFile | SplitFile, place: Path, number: int = 0) -> None:
        """Note that an image, with its number among those taken, has its key."""
        self._used[id(table)][self._assigned[id(table)].keys[place]] = number

    def used(self, table: LandmarkFile | SplitFile) -> Mapping[str, int]:
        """Keys of the images taken, with the numbers of these."""
        return self._used[id(table)]

    def unclear(self, table: LandmarkFile | SplitFile) -> Mapping[str, Sequence[Path]]:
        """Keys that fit several images."""
        return self._assigned[id(table)].unclear

    def declared_repeats(self) -> list[tuple[int, int]]:
        """Pairs of images, by number, that the split file calls repeats."""
        if self._splits is None:
            return []
        place = self.used(self._splits)
        pairs = [(key, other) for key, other in self._splits.duplicate_of.items() if {key, other} <= place.keys()]
        return [(place[key], place[other]) for key, other in pairs]
