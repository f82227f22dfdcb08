"""Apply a reader's habit to the landmarks of a run: move them, and stretch the regions around them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.radii import with_radii
from medpixcl.apps.results import Landmarks, Results
from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, spatial_affine
from medpixcl.data.identity import pair_images
from medpixcl.data.landmarks.row import CORRECTED
from medpixcl.data.text import quoted
from medpixcl.landmarks.regions import balls, region_scale

ORIGINS = {
    "finder": "another kind of finder",
    "bundle": "another bundle",
    "weights": "other weights",
    "template": "another template",
}
"""What may differ between the run that a habit was learnt in and this one."""
SHOWN = 5
"""Number of names that a sentence lists."""
LEAST_TO_STRETCH = 3
"""Least number of corrected images that tell the size of the regions."""
LEAST_MOVED = 0.5
"""Least share of the landmarks of these images that the reader must have moved."""


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
                f"the reading habit {name!r} has the landmarks {listed(landmarks)}, and this run finds "
                f"{listed(results.names)}; give a habit of these landmarks"
            )
        if without:
            results.notes.append(f"the reading habit {name!r} does not know {listed(without)}: they stay as found")
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


def wanted_stretch(
    results: Results, corrected: Sequence[Landmarks], away_mm: Float[Tensor, "n k d"], moved: Bool[Tensor, "n k"]
) -> float | None:
    """Compute by how much the regions must be stretched to hold what a reader would mark in the other images.

    A landmark that the reader left in place counts as within its region: how far it is off is not known. If most were
    left in place, nothing is known of the size.

    Args:
        results: Results of the run; gets a note if the corrections do not tell the size.
        corrected: Landmarks of the corrected images as they were found.
        away_mm: What is left in these images after the habit of the others, see
            :func:`medpixcl.landmarks.habit.left_out_errors`, (N, K, D).
        moved: True for each landmark that the reader moved, (N, K).

    Returns:
        Factor of the semi-axes (or radii); None without a calibration, or if the corrections do not tell it.
    """
    regions = [region for one in corrected if (region := _regions(one)) is not None]
    if results.coverage is None or len(regions) < len(corrected):
        return None
    there = int(sum(int((~one.points.missing).sum()) for one in corrected))
    away = torch.where(moved[..., None], away_mm, away_mm * 0)
    factor = region_scale(away, torch.stack(regions), results.coverage)
    if factor is None or len(corrected) < LEAST_TO_STRETCH or int(moved.sum()) < LEAST_MOVED * there:
        results.notes.append(
            f"radii and regions keep the size of the calibration: in {_corrected(len(corrected))} "
            f"{int(moved.sum())} of {there} landmarks were moved; correct all landmarks of at least "
            f"{LEAST_TO_STRETCH} images to adapt it"
        )
        return None
    return factor


def stretch_regions(results: Results) -> None:
    """Stretch the regions (or radii) of all landmarks that no reader placed by :attr:`Results.stretch`, if any."""
    if (factor := results.stretch) is None:
        return
    results.landmarks = [_stretched(one, factor) for one in results.landmarks]
    results.radii = results.radii.stretched(factor)
    results.facts[f"size of the {'circles' if results.radii.calibration else 'regions'}"] = (
        f"{factor:.2f} times that of the calibration, which the {_corrected(len(results.corrected))} ask for"
    )


def _stretched(one: Landmarks, factor: float) -> Landmarks:
    if one.regions_mm2 is not None:
        return replace(one, regions_mm2=one.regions_mm2 * factor**2)
    return one if one.radii_mm is None else _with_radii(one, one.radii_mm * factor)


def _regions(one: Landmarks) -> Tensor | None:
    """Regions of an image in mm^2, (K, D, D): balls where there are radii only."""
    if one.regions_mm2 is not None or one.radii_mm is None:
        return one.regions_mm2
    return balls(one.radii_mm, one.points.dims)


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
    if one.regions_mm2 is not None:  # those of a finder say nothing about the places of a reader
        one = replace(one, regions_mm2=one.regions_mm2.masked_fill(given[:, None, None], torch.nan))
    one = replace(one, points=points)
    if one.radii_mm is None or not bool(given.any()):
        return one
    return _with_radii(one, one.radii_mm.masked_fill(given, torch.nan))


def _with_radii(one: Landmarks, radii_mm: Float[Tensor, " k"]) -> Landmarks:
    """The landmarks of an image with other error radii, in the table as well."""
    return replace(one, radii_mm=radii_mm, extras=with_radii(one.extras, radii_mm))


def _corrected(images: int) -> str:
    return f"{images} corrected image{'' if images == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(quoted, names[:SHOWN])) + more
