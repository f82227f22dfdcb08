"""What the landmark and split files of a scan say of its images."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import image_affine
from medpixcl.data.image_keys import Assignment, assign_either, why_unclear
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Entry
from medpixcl.data.manifest_paths import relative_path, shown_path
from medpixcl.data.scan_grouping import ImageList
from medpixcl.data.scan_inputs import ScanInputs
from medpixcl.data.sources import Source
from medpixcl.data.splits import SplitFile
from medpixcl.data.text import quoted

_SHOWN = 5


class ScanTables:
    """Which keys of the landmark and split files name which images, and which of them were used.

    Args:
        inputs: What is scanned.
        images: All images, also those that cannot be used, since a key may be theirs.

    Raises:
        ValueError: If several keys fit an image.
    """

    def __init__(self, inputs: ScanInputs, images: ImageList) -> None:
        self._inputs = inputs
        places = [source.place for source in images] if inputs.tables else []
        self._series = {one.place: one.made_from.place for one in images if one.made_from} if inputs.tables else {}
        shared = [*Counter(places).items(), *Counter(self._series.values()).items()]
        self._of_several = {place for place, number in shared if number > 1}
        self._assigned: dict[int, Assignment] = {}
        self._renamed: dict[int, dict[str, Path]] = {}
        for table in inputs.tables:
            either = assign_either(table.assign, places, self._series)
            own = table.assign(places) if isinstance(table, LandmarkFile) else either  # later reading knows these only
            named = set(own.keys.values()) | own.unclear.keys()
            self._assigned[id(table)] = own
            self._renamed[id(table)] = {key: place for place, key in either.keys.items() if key not in named}
        self._used: dict[int, dict[str, int]] = {id(table): {} for table in inputs.tables}

    def add_to(self, entry: Entry, source: Source, number: int) -> str | None:
        """Name landmark files and split of an image; return the reason if it has no split.

        Args:
            entry: Entry of the image, which is changed.
            source: Image.
            number: Number of images taken before.

        Raises:
            ValueError: If a landmark lies outside of the image, or counts voxels of a series that was resampled.
        """
        for reader, points in self._inputs.points.items():
            if (key := self._key(points, source.place)) is not None:
                self._add_landmarks(entry, source.place, reader, points, key)
        splits = self._inputs.splits
        if splits is None:
            return None
        if (key := self._key(splits, source.place)) is None:
            return f"is not named in {splits.path.name}; give it a split."
        self._used[id(splits)][key] = number
        entry["split"] = splits.splits[key]
        return None

    def _add_landmarks(self, entry: Entry, place: Path, reader: str | None, points: LandmarkFile, key: str) -> None:
        self._refuse_stored_voxels(points, key, place)
        points.for_image(place, _affine_of(entry), entry["shape"])
        file = relative_path(points.path.absolute(), self._inputs.base_dir)
        entry["landmarks"] = file if reader is None else {**(entry["landmarks"] or {}), reader: file}
        self._used[id(points)][key] = 0

    def declared_repeats(self) -> list[tuple[int, int]]:
        """Pairs of images, by number, that the split file calls repeats."""
        if self._inputs.splits is None:
            return []
        place = self._used[id(self._inputs.splits)]
        pairs = self._inputs.splits.duplicate_of.items()
        return [(place[key], place[other]) for key, other in pairs if {key, other} <= place.keys()]

    def notes(self) -> Iterator[tuple[Path, str]]:
        """What a landmark or split file says of no image, or of several: its path and the reason."""
        for table in self._inputs.tables:
            yield from ((table.path.absolute(), reason) for reason in self._notes_of(table))

    def _notes_of(self, table: LandmarkFile | SplitFile) -> Iterator[str]:
        unclear, renamed = self._assigned[id(table)].unclear, self._renamed[id(table)]
        shared = self._shared(table)
        yield from (why_unclear(key, images) for key, images in unclear.items())
        yield from (
            f"names {quoted(key)}, a folder of several volumes; give each a folder of its own." for key in shared
        )
        for key, volume in renamed.items():
            name = shown_path(volume, table.path.absolute().parent)
            yield f"names {quoted(key)}, a series with gantry tilt, which was resampled; name the volume {name}."
        known = {*self._used[id(table)], *unclear, *shared, *renamed}
        if absent := [key for key in table.images if key not in known]:
            shown = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
            what = "landmarks" if isinstance(table, LandmarkFile) else "a split"
            yield f"gives {what} to {len(absent)} image(s) that are not among those taken: {shown}."

    def _key(self, table: LandmarkFile | SplitFile, place: Path) -> str | None:
        """Key of an image; None if the table does not name it, or gives landmarks to a folder of several volumes."""
        key = self._assigned[id(table)].keys.get(place)
        return None if key is None or self._is_shared(table, place, key) else key

    def _shared(self, table: LandmarkFile | SplitFile) -> list[str]:
        """Keys of folders of several volumes, of which one only can have the landmarks."""
        keys = self._assigned[id(table)].keys
        return [key for place, key in keys.items() if self._is_shared(table, place, key)]

    def _is_shared(self, table: LandmarkFile | SplitFile, place: Path, key: str) -> bool:
        if not isinstance(table, LandmarkFile):
            return False
        of_series = place in self._series and not key.endswith(place.suffix)
        return (self._series[place] if of_series else place) in self._of_several

    def _refuse_stored_voxels(self, points: LandmarkFile, key: str, place: Path) -> None:
        """Refuse voxels that a table counts in a tilted series, of which the resampled volume has others."""
        if place in self._series and not key.endswith(place.suffix) and points.in_voxels(key):
            raise ValueError(
                f"{points.path}: {quoted(key)} has landmarks in voxels of a series with gantry tilt, which was "
                f"resampled; give them in mm, or mark them on {place} and name that file."
            )


def _affine_of(entry: Entry) -> Float[Tensor, "4 4"]:
    if "affine" not in entry:
        return image_affine(entry["spacing_mm"])
    return torch.tensor([*entry["affine"], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
