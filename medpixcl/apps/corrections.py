"""Correct a few images, improve all: what a reader corrected after a run, learnt and applied to the other images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.measurement import image_folder
from medpixcl.apps.results import CORRECTED, Landmarks, Results
from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, spatial_affine
from medpixcl.data.identity import first_file, image_stem, pair_images, short_name, telling_names
from medpixcl.data.landmarks.reading import RUN_MARKUPS, RUN_TABLE, markups_of_run, read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.landmarks.habit import learn_habit

UNCHANGED_MM = 0.01
"""Distance in mm below which a landmark counts as left in place: files round their positions."""
ORIGINS = {
    "finder": "another kind of finder",
    "bundle": "another bundle",
    "weights": "other weights",
    "template": "another template",
}
"""What may differ between the run that a habit was learnt in and this one."""
SHOWN = 5
"""Number of names that a sentence lists."""


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
                f"{self.file.path} has the landmarks {_some(unknown)}, and this run finds {_some(names)}; give "
                "corrections of landmarks of these names"
            )
        keys = self._keys(images.name(_source(item["image"])) for item in images.datalist)
        absent = [key for key in self.file.images if key not in keys.values()]
        if not keys:
            raise ValueError(
                f"{self.file.path} corrects {_some(absent)}, and none of these is among the images to search; give "
                "corrections of some of them, under the names that landmarks.csv has"
            )
        results.notes += [f"corrections are not used: {reason}" for reason in self.unreadable]
        if unknown:
            results.notes.append(f"the corrections also hold landmarks that are not searched: {_some(unknown)}")
        if absent:
            results.notes.append(f"the corrections also hold images that are not searched: {_some(absent)}")

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
        known = self._corrected_before()
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
                f"to have read them: {_some(list(telling_names(unchanged).values()))}"
            )
        if elsewhere > 1:
            results.notes.append(
                f"in {elsewhere} images of the corrections every landmark differs from where this run finds it: see "
                "that a reader placed them, and that they are not what another run found"
            )
        return read

    def _corrected_before(self) -> set[str]:
        """Images of the file in which a run with corrections flagged a landmark as corrected."""
        rows = {key: [self.file.row(key, name) for name in self.file.names] for key in self.file.images}
        return {key for key, of_image in rows.items() if any(row and row.flag == CORRECTED for row in of_image)}

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
                f"{RUN_TABLE} and {RUN_MARKUPS} of {self.file.path} have {_some(names)} at different places, and "
                "neither is where this run finds it; give the one of the two that was edited"
            )
        return torch.where(edited[:, None], written, in_slicer)

    def _keys(self, images: Iterable[str]) -> dict[str, str]:
        return pair_images(images, self.file.images)


class KnownHabit:
    """The habit of an earlier run, to apply to this one.

    Args:
        path: File that a run with corrections wrote.

    Raises:
        ValueError: If the file holds no habit.
    """

    def __init__(self, path: AnyPath) -> None:
        self.known = ReadingHabit.read(path)

    def check(self, results: Results, found_by: Mapping[str, str]) -> None:
        """Check before the search whether the habit fits the run; note what the user should know.

        Args:
            results: Results of the run, still empty.
            found_by: What finds the landmarks, see :func:`medpixcl.apps.habit_file.found_by`.

        Raises:
            ValueError: If it has none of the landmarks.
        """
        name, landmarks = self.known.name, self.known.habit.names
        without = [one for one in results.names if one not in landmarks]
        if len(without) == len(results.names):
            raise ValueError(
                f"the reading habit {name!r} has the landmarks {_some(landmarks)}, and this run finds "
                f"{_some(results.names)}; give a habit of these landmarks"
            )
        if without:
            results.notes.append(f"the reading habit {name!r} does not know {_some(without)}: they stay as found")
        other = [word for key, word in ORIGINS.items() if self.known.found_by.get(key, "") != found_by.get(key, "")]
        if other:
            results.notes.append(
                f"the reading habit {name!r} was learnt with {' and '.join(other)}; an offset is the reader's less "
                "that of what found the landmarks, so correct a few images of this run to be sure"
            )

    def read(self, results: Results) -> dict[str, Float[Tensor, "k d"]]:
        """Positions that a reader gave in this run: none."""
        return {}

    def apply(self, results: Results, read: Mapping[str, Float[Tensor, "k d"]], found_by: Mapping[str, str]) -> None:
        """Move the landmarks of all images."""
        move_landmarks(results, self.known)


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


def move_landmarks(
    results: Results, known: ReadingHabit, read: Mapping[str, Float[Tensor, "k d"]] | None = None
) -> None:
    """Move the landmarks of all images by a habit; images that a reader corrected get the reader's positions.

    Args:
        results: Landmarks as they were found; changed in place.
        known: The habit.
        read: Positions of the reader by image, (K, D), in mm, LPS+, NaN where the reader gave none.

    Raises:
        ValueError: If habit and images differ in their number of axes.
    """
    habit, dims = known.habit.of(results.names), known.habit.offsets_mm.shape[1]
    if other := [one.image for one in results.landmarks if one.points.dims != dims]:
        raise ValueError(f"the reading habit {known.name!r} has {dims} axes, and {other[0]} has others; give its own")
    read = read or {}
    moved = [habit.apply(one.mm) for one in results.landmarks]
    results.landmarks = [
        _placed(one, places, read.get(one.image)) for one, places in zip(results.landmarks, moved, strict=True)
    ]
    results.reading, results.corrected = known, tuple(one.image for one in results.landmarks if one.image in read)
    run = "this" if read else "another"
    results.facts["reading habit"] = f"{known.name}, learnt from {_corrected(known.images)} of {run} run"
    if read:
        _leave_out(results, read)


def mean_moves(results: Results, found_mm: Mapping[str, Float[Tensor, "k d"]]) -> Float[Tensor, " k"]:
    """Mean distance in mm, over the images that were not corrected, between each landmark and where it was found first.

    Args:
        results: Landmarks after the habit was applied.
        found_mm: Positions in mm, LPS+, as they were found, (K, D), by :attr:`Landmarks.source`.

    Returns:
        Shape (K,); NaN where no image has the landmark.
    """
    others = [one for one in results.landmarks if one.image not in results.corrected]
    moves = [torch.linalg.vector_norm(one.mm - found_mm[one.source], dim=1) for one in others]
    return torch.stack(moves).nanmean(dim=0) if moves else torch.full((len(results.names),), torch.nan)


def _leave_out(results: Results, read: Mapping[str, Tensor]) -> None:
    """Take the corrected images out of the reference: what the habit was fitted to cannot measure it."""
    if results.reference is None:
        return
    fitted = set(pair_images(read, results.reference).values())
    rest = {image: places for image, places in results.reference.items() if image not in fitted}
    others = [one.image for one in results.landmarks if one.image not in read]
    results.reference = rest if pair_images(others, rest) else None
    results.facts["measured"] = f"without {_corrected(len(fitted))} of the reference"
    if results.reference is None:
        results.notes.append("no error is measured: all images of the reference were corrected and learnt from")


def _placed(one: Landmarks, moved: Float[Tensor, "k d"], read: Float[Tensor, "k d"] | None) -> Landmarks:
    """The landmarks of one image at new places, inside the image; those of a reader are flagged as corrected."""
    given = torch.zeros(len(moved), dtype=torch.bool) if read is None else ~read.isnan().any(dim=1)
    places = moved if read is None else torch.where(given[:, None], read, moved)
    voxels = mm_to_voxel(flip_ras_lps(places), spatial_affine(one.affine, one.points.dims))
    least = one.voxels.clamp_max(-0.5)  # what was found outside of the image may stay there
    most = one.voxels.maximum(torch.tensor(one.shape, dtype=torch.float64) - 0.5)
    flags = tuple(CORRECTED if mine else flag for mine, flag in zip(given.tolist(), one.flags, strict=True))
    points = replace(one.points, voxels=torch.where(given[:, None], voxels, voxels.clamp(least, most)), flags=flags)
    one = replace(one, points=points, regions_mm2=_masked(one.regions_mm2, given[:, None, None]))
    if one.radii_mm is None or not bool(given.any()):
        return one
    extras = [row | {"radius_mm": ""} if mine else row for row, mine in zip(one.extras, given.tolist(), strict=True)]
    return replace(one, radii_mm=_masked(one.radii_mm, given), extras=tuple(extras))


def _masked(values: Tensor | None, unknown: Tensor) -> Tensor | None:
    """The error radii or regions of a finder, which say nothing about the places of a reader."""
    return None if values is None else values.masked_fill(unknown, torch.nan)


def _places(file: LandmarkFile, one: Landmarks, key: str) -> Float[Tensor, "k d"]:
    """Positions of an image's landmarks in mm, LPS+, as a landmark file has them under a key; NaN where it has none."""
    paths = [*one.files[:1], image_folder(file) / key]
    named = next(path for path in paths if file.find(path) == key)
    return one.mm_of(file.for_image(named, one.affine, one.shape))


def _apart(first: Float[Tensor, "k d"], second: Float[Tensor, "k d"]) -> Bool[Tensor, " k"]:
    """True for each landmark that lies at two places, or at one of them only."""
    moved = torch.linalg.vector_norm(first - second, dim=1) > UNCHANGED_MM
    return moved | (first.isnan().any(dim=1) != second.isnan().any(dim=1))


def _source(image: str | list[str] | MetaTensor) -> str:
    """Name under which an image list knows an item's image."""
    return str(image.meta["filename_or_obj"]) if isinstance(image, MetaTensor) else first_file({"image": image})


def _corrected(images: int) -> str:
    return f"{images} corrected image{'' if images == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
