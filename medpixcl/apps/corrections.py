"""Correct a few images, improve all: what a reader corrected in the images of a run."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.habits import KnownHabit, listed, move_landmarks, wanted_stretch
from medpixcl.apps.images import source_of
from medpixcl.apps.measurement import image_folder
from medpixcl.apps.results import Landmarks, Results
from medpixcl.data.identity import image_stem, pair_images, short_name, telling_names
from medpixcl.data.landmarks.reading import RUN_MARKUPS, RUN_TABLE, markups_of_run, read_landmarks
from medpixcl.data.landmarks.row import CORRECTED
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.landmarks.habit import learn_habit, left_out_errors

UNCHANGED_MM = 0.01
"""Distance in mm below which a landmark counts as left in place: files round their positions."""


class Corrections:
    """Landmarks that a reader placed in some of the images of a run.

    An image counts as read if one of its landmarks at least was moved. Then all its landmarks with a position in the
    file count, also those left in place, which the reader has confirmed.

    Args:
        path: Landmark file or folder, as :func:`medpixcl.data.landmarks.reading.read_landmarks` takes it; or the output
            folder of a run, of which the Slicer files or the table were edited.

    Raises:
        ValueError: If no landmarks can be read; the message names the file.
    """

    def __init__(self, path: AnyPath) -> None:
        self.unreadable: list[str] = []
        self.file = read_landmarks(path, self.unreadable)
        markups = markups_of_run(self.file.path)
        self.markups = None if markups is None else read_landmarks(markups, self.unreadable)

    @property
    def name(self) -> str:
        """Name of the habit: that of the file or folder, unless it is named after an image, as a patient may be."""
        name = image_stem(self.file.path.resolve().name)
        return "corrections" if name in {image_stem(short_name(key)) for key in self.file.images} else name

    def check(self, results: Results, found_by: Mapping[str, str]) -> None:
        """Check before the search whether the corrections belong to the run; note what does not.

        Args:
            results: Results of the run, still empty.
            found_by: What finds the landmarks, see :func:`medpixcl.apps.habit_file.found_by`.

        Raises:
            ValueError: If no image or no landmark of the file is in the run, or a name stands for several images.
        """
        names, images = results.names, results.images
        unknown = [name for name in self.file.names if name not in names]
        if len(unknown) == len(self.file.names):
            raise ValueError(
                f"{self.file.path} has the landmarks {listed(unknown)}, and this run finds {listed(names)}; give "
                "corrections of landmarks of these names"
            )
        keys = self._keys(images.name(source_of(item["image"])) for item in images.datalist)
        absent = [key for key in self.file.images if key not in keys.values()]
        if not keys:
            raise ValueError(
                f"{self.file.path} corrects {listed(absent)}, and none of these is among the images to search; give "
                "corrections of some of them, under the names that landmarks.csv has"
            )
        results.notes += [f"corrections are not used: {reason}" for reason in self.unreadable]
        if unknown:
            results.notes.append(f"the corrections also hold landmarks that are not searched: {listed(unknown)}")
        if absent:
            results.notes.append(f"the corrections also hold images that are not searched: {listed(absent)}")

    def apply(self, results: Results, read: Mapping[str, Float[Tensor, "k d"]], found_by: Mapping[str, str]) -> None:
        """Learn the habit from the corrected images of a run, and apply it to the others.

        Corrected images keep the positions of the reader. They are left out of every measured error, as the habit is
        fitted to them.

        Args:
            results: Landmarks as they were found; changed in place.
            read: Positions of the reader, see :meth:`read`.
            found_by: What found them, see :func:`medpixcl.apps.habit_file.found_by`.
        """
        there = [one for one in results.landmarks if one.image in read]
        if all((read[one.image] - one.mm).isnan().any(dim=1).all() for one in there):
            results.notes.append("nothing was learnt: no corrected image can be used; all landmarks are as found")
            return
        found, given = torch.stack([one.mm for one in there]), torch.stack([read[one.image] for one in there])
        habit = learn_habit(results.names, found, given)
        moved = torch.linalg.vector_norm(given - found, dim=2) > UNCHANGED_MM
        results.stretch = wanted_stretch(results, there, left_out_errors(found, given), moved)
        move_landmarks(results, ReadingHabit(self.name, habit, len(read), found_by), read)

    def read(self, results: Results) -> dict[str, Float[Tensor, "k d"]]:
        """Find the images that the reader changed, and note those that teach nothing.

        Args:
            results: Landmarks as they were found.

        Returns:
            Positions of the reader in mm, LPS+, (K, D), by image; NaN where the file has none.
        """
        keys, read, unchanged = self._keys(one.image for one in results.landmarks), {}, []
        marked = {} if self.markups is None else pair_images(keys, self.markups.images)
        known = self.file.flagged(CORRECTED)  # by an earlier run with corrections
        elsewhere = 0
        for one in results.landmarks:
            if one.image not in keys:
                continue
            if known and keys[one.image] not in known:
                unchanged.append(one.image)
                continue
            try:
                places = self._positions(one, keys[one.image], marked.get(one.image))
            except ValueError as error:
                results.notes.append(f"the corrections of {one.image} are not used: {error}")
                continue
            moved = torch.linalg.vector_norm(places - one.mm, dim=1)
            added = one.points.missing & ~places.isnan().any(dim=1)
            if bool((added | (moved > UNCHANGED_MM)).any()):
                read[one.image] = places
                elsewhere += bool((moved > UNCHANGED_MM).all())
            else:
                unchanged.append(one.image)
        if unchanged:
            results.notes.append(
                "images of the corrections that have every landmark where it was found teach nothing, as nobody seems "
                f"to have read them: {listed(list(telling_names(unchanged).values()))}"
            )
        if elsewhere > 1:
            results.notes.append(
                f"in {elsewhere} images of the corrections every landmark differs from where this run finds it: that "
                "is right if a reader placed them all, and wrong if another run found them"
            )
        return read

    def _positions(self, one: Landmarks, key: str, marked: str | None) -> Float[Tensor, "k d"]:
        """Positions of a reader in an image, from the table or from the Slicer file of a run, whichever was edited."""
        written = _places(self.file, one, key)
        if self.markups is None or marked is None:
            return written
        in_slicer = _places(self.markups, one, marked)
        rows = [self.file.row(key, name) for name in one.names]
        kept = torch.tensor([row is not None and row.flag == CORRECTED for row in rows])  # by the run, no later edit
        edited = _apart(written, in_slicer) & _apart(written, one.mm) & ~kept
        if bool((twice := edited & _apart(in_slicer, one.mm)).any()):
            names = [name for name, both in zip(one.names, twice.tolist(), strict=True) if both]
            raise ValueError(
                f"{RUN_TABLE} and {RUN_MARKUPS} of {self.file.path} have {listed(names)} at different places, and "
                "neither is where this run finds it; give the one of the two that was edited"
            )
        return torch.where(edited[:, None], written, in_slicer)

    def _keys(self, images: Iterable[str]) -> dict[str, str]:
        return pair_images(images, self.file.images)


def require_apart(corrections: Path, output: Path) -> None:
    """Check that the results do not overwrite the corrections.

    Raises:
        ValueError: If the corrections lie in the folder of the results.
    """
    if corrections.resolve().is_relative_to(output.resolve()):
        raise ValueError(
            f"the corrections {corrections} lie in the folder of the results, {output}, which would overwrite them; "
            "give another folder for the results"
        )


def reader_of(corrections: AnyPath | None, habit: AnyPath | None) -> Corrections | KnownHabit | None:
    """Read the corrections or the habit that a call gives; None without either.

    Raises:
        ValueError: If both are given, or the file is bad.
    """
    if corrections is not None and habit is not None:
        raise ValueError("found corrections and a reading habit; give one of the two, as either gives the offsets")
    if corrections is not None:
        return Corrections(corrections)
    return None if habit is None else KnownHabit(habit)


def _places(file: LandmarkFile, one: Landmarks, key: str) -> Float[Tensor, "k d"]:
    """Positions of an image's landmarks in mm, LPS+, as a landmark file has them under a key; NaN where it has none."""
    paths = [*one.files[:1], image_folder(file) / key]
    named = next(path for path in paths if file.find(path) == key)
    return one.mm_of(file.for_image(named, one.affine, one.shape))


def _apart(first: Float[Tensor, "k d"], second: Float[Tensor, "k d"]) -> Bool[Tensor, " k"]:
    """True for each landmark that lies at two places, or at one of them only."""
    moved = torch.linalg.vector_norm(first - second, dim=1) > UNCHANGED_MM
    return moved | (first.isnan().any(dim=1) != second.isnan().any(dim=1))
