"""Landmarks found in two independent ways: the mean of both, and doubt where they differ."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.radii import Radii
from medpixcl.apps.results import Landmarks, Results
from medpixcl.data.landmarks.row import CORRECTED
from medpixcl.landmarks.points import LandmarkSet

MAX_DIFFERENCE_MM = 2.0
"""Distance between both positions above which a landmark is unsure."""
MOST_APART = 0.3
"""Share of such landmarks above which a note says so."""


def mean_of_both(first: Results, second: Results, *, max_difference_mm: float = MAX_DIFFERENCE_MM) -> Results:
    """Average the landmarks that two finders found in the same images.

    A landmark is unsure if both finders doubt it, if their positions differ by more than ``max_difference_mm``, or if
    one of them did not find it; then the other's position is taken. Scores are averaged, unless the second finder, a
    registration, knows none; half the difference between the positions widens the covariance.

    Args:
        first: Results whose names, templates, facts and reference the mean keeps.
        second: Results of another finder on the same images, with all landmarks of the first.
        max_difference_mm: Distance between both positions above which a landmark is unsure.

    Returns:
        The results, without radii, since those of one finder do not fit the mean.
    """
    others = {one.source: _in_order(one, first.names) for one in second.landmarks}
    pairs = [(one, others[one.source]) for one in first.landmarks if one.source in others]
    merged = [_merged(*pair, max_difference_mm) for pair in pairs]
    away = torch.cat([torch.zeros(0, dtype=torch.float64), *[_difference_mm(*pair) for pair in pairs]])
    results = replace(first, landmarks=merged, radii=Radii(None, first.names), metrics=None, facts=dict(first.facts))
    results.notes = list(dict.fromkeys([*first.notes, *second.notes]))
    results.matched_flags = [one.flags for one, _ in pairs]
    results.alone = [first, replace(second, reference=first.reference, corrected=first.corrected)]
    share = float((away > max_difference_mm).double().mean())
    ways = " and ".join(one.title.lower() for one in (first, second))
    apart = f"by more than {max_difference_mm:g} mm at {100 * share:.0f} % of the landmarks"
    results.facts["positions"] = (
        f"mean of {ways}, which differ by {float(away.nanmedian()):.1f} mm in the median, and {apart}"
    )
    if share > MOST_APART:
        results.notes.append(
            f"{ways} differ {apart}: one of the two does not fit these images; look at the overlays of each alone, and "
            "see that a detector was trained long enough, on images like these"
        )
    return results


def require_fitting(names: Sequence[str], found: Sequence[str], calibration: AnyPath | None) -> None:
    """Check whether the mean of two finders can be taken.

    Args:
        names: Landmarks of the first finder.
        found: Landmarks of the second finder.
        calibration: Error radii that are asked for, if any.

    Raises:
        ValueError: If the second finder lacks a landmark, or there is a calibration, which holds for one finder.
    """
    if calibration is not None:
        raise ValueError("a calibration holds for matching alone; leave out the calibration or the second way")
    if unknown := [name for name in names if name not in found]:
        raise ValueError(
            f"the second way finds no landmark {unknown[0]!r}; give a detector that was trained on the templates' "
            "landmarks"
        )


def _in_order(one: Landmarks, names: tuple[str, ...]) -> Landmarks:
    """The landmarks of an image in another order, perhaps fewer."""
    order = [one.names.index(name) for name in names]
    points = LandmarkSet(names, one.voxels[order], one.scores[order], tuple(one.flags[number] for number in order))
    return replace(one, points=points, covariance_mm2=None if one.covariance_mm2 is None else one.covariance_mm2[order])


def _difference_mm(one: Landmarks, other: Landmarks) -> Float[Tensor, " k"]:
    """Distance between both positions of each landmark, NaN where one is missing."""
    return torch.linalg.vector_norm(one.mm - other.mm, dim=1)


def _merged(one: Landmarks, other: Landmarks, max_difference_mm: float) -> Landmarks:
    """Mean of the landmarks of one image."""
    voxels = torch.stack([one.voxels, other.voxels]).nanmean(dim=0)
    rated = other.covariance_mm2 is None or not bool(other.covariance_mm2.isnan().all())
    scores = torch.stack([one.scores, other.scores]).nanmean(dim=0) if rated else one.scores
    far = ~(_difference_mm(one, other) <= max_difference_mm)
    flags = tuple(map(_flag, one.flags, other.flags, far.tolist(), voxels.isnan().any(dim=1).tolist()))
    half = (one.mm - other.mm).nan_to_num(0) / 2
    spread = None
    if one.covariance_mm2 is not None and other.covariance_mm2 is not None:
        spread = torch.stack([one.covariance_mm2, other.covariance_mm2]).nanmean(dim=0)
        spread = spread + half[:, :, None] * half[:, None, :]
    points = LandmarkSet(one.names, voxels, scores, flags)
    return replace(one, points=points, extras=(), covariance_mm2=spread, radii_mm=None)


def _flag(one: str, other: str, far: bool, missing: bool) -> str:
    """Flag of a landmark from those of both finders."""
    if missing:
        return "missing"
    if one == other == CORRECTED:
        return CORRECTED
    return "unsure" if far or (one == other == "unsure") else ""
