"""Tell which DICOM slices form a volume together: series, scans, stacks, time points; and which are odd ones out.

An identifier alone is not trusted: exports split a series over folders, and removal of names deletes identifiers or
gives two scans the same.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from medpixcl.data.dicom_geometry import MINIMUM_SLICES, SliceGeometry, differing, in_slice_order
from medpixcl.data.pixels import ImageFileError

Slices = list[SliceGeometry]
_LOCALIZERS = ("LOCALIZER", "SCOUT", "TOPOGRAM")
_SAME_PLACE = 0.1
"""Slices closer than this fraction of the usual distance lie at one place."""
_PARTS = 2
_OVERLAP = 0.75
"""Share of the extent of all slices that the largest of several scans covers at least."""


def volumes_of(slices: Sequence[SliceGeometry]) -> tuple[list[Slices], list[ImageFileError]]:
    """Sort slices of any number of patients and scans into volumes.

    Returns:
        The slices of each volume, in slice order, whether they lie on a regular grid or not; and an error with its
        reason for every slice that is set aside: localizers, copies, and those unlike the rest of their series.
    """
    volumes: list[Slices] = []
    aside: list[ImageFileError] = []
    for scan in _scans(slices):
        kept, copies = _without_copies(scan)
        aside += [ImageFileError(one.path, f"is a copy of slice {_shown(other)}.") for one, other in copies]
        scouts = [one for one in kept if _is_localizer(one)]
        aside += [ImageFileError(one.path, "is a localizer (scout); it is no slice of a volume.") for one in scouts]
        if kept := [one for one in kept if not _is_localizer(one)]:
            stacks, odd = _stacks_and_odd(kept)
            volumes += stacks
            aside += odd
    return [in_slice_order(one) for one in volumes], aside


def _stacks_and_odd(slices: Slices) -> tuple[list[Slices], list[ImageFileError]]:
    alike = _alike(slices)
    usual = max(alike, key=len)
    if len(usual) < MINIMUM_SLICES:
        return [slices], []  # no volume, for the reason that its reader finds
    odd = [_odd(one, usual) for group in alike if len(group) < MINIMUM_SLICES for one in group]
    return [stack for group in alike if len(group) >= MINIMUM_SLICES for stack in _split(group)], odd


def stacks_of(slices: Sequence[SliceGeometry]) -> list[Slices]:
    """Split slices of one scan by orientation, size and image type.

    Where places repeat, or two scans lie between each other, also by acquisition, time point, echo and the like.
    """
    return [stack for group in _alike(slices) for stack in _split(group)]


def why_mixed(slices: Sequence[SliceGeometry]) -> str | None:
    """Explain why slices in order seem to be of two scans that alternate; None if nothing says so."""
    if not slices[0].series and _numbers_jump(slices):
        return (
            "SeriesInstanceUID is missing, and the slices are not numbered (InstanceNumber) in their order, as if they "
            "came from two scans; give the files of one scan, or put the identifier back."
        )
    if not _numbers_interleave(slices):
        return None
    return (
        "their numbers (InstanceNumber) repeat in turns along the slices, as if two scans had one SeriesInstanceUID; "
        "give the files of one scan."
    )


def series_of(one: SliceGeometry) -> str | Path:
    """What the slices that are looked at together share: the series identifier, or the folder where it is absent."""
    return one.series or one.path.parent


def _scans(slices: Sequence[SliceGeometry]) -> list[Slices]:
    """Slices of one series, also over several folders; without a series identifier, those of one folder."""
    series = _by(slices, series_of)
    return [part for scan in series for part in _by_scan(scan)]


def _by_scan(slices: Slices) -> list[Slices]:
    """Split by patient, study, frame of reference and series number.

    One that differs in every slice names no scan. One that is missing in some slices of a series was lost there.
    """
    lost = {""} if slices[0].series else set()
    names = {one.scan[:1] for one in slices}
    telling = [0] if len(names) > 1 else []
    for place in range(1, len(slices[0].scan)):
        if 1 < len({one.scan[place] for one in slices} - lost) < len(slices):
            telling.append(place)
    return _by(slices, lambda one: (one.modality, *(one.scan[place] for place in telling)))


def _without_copies(slices: Slices) -> tuple[Slices, list[tuple[SliceGeometry, SliceGeometry]]]:
    """Set aside files of an instance that was met already; whole copies in folders of their own stay, as volumes."""
    met: dict[Hashable, SliceGeometry] = {}
    copies = []
    sizes = Counter(one.folder for one in slices)
    for one in sorted(slices, key=lambda one: -sizes[one.folder]):  # the fullest folder keeps its slices
        key = (one.instance, one.frame, *one.position.round(3))
        if met.setdefault(key, one) is not one:
            copies.append((one, met[key]))
    unique = {one.instance for one in slices if one.instance}
    if not copies or len(unique) != len(met):
        return slices, []
    folders = _by(slices, lambda one: one.folder)
    if len(folders) > 1 and all(len({one.instance for one in part}) == len(part) == len(met) for part in folders):
        return slices, []
    aside = {one.file for one, _ in copies}
    return [one for one in slices if one.file not in aside], copies


def _is_localizer(one: SliceGeometry) -> bool:
    return any(name in _LOCALIZERS for name in one.image_type[2:])


def _alike(slices: Sequence[SliceGeometry]) -> list[Slices]:
    groups: list[Slices] = []
    for one in slices:
        for group in groups:
            if differing(one, group[0]) is None:
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _shown(one: SliceGeometry) -> str:
    return f"{one.path.parent.name}/{one.path.name}"


def _odd(one: SliceGeometry, usual: Slices) -> ImageFileError:
    return ImageFileError(
        one.path, f"differs in {differing(one, usual[0])} from the other {len(usual)} slices of its series."
    )


def _split(slices: Slices) -> list[Slices]:
    """Split where slices share a place or two scans alternate; unsplit where nothing tells them apart."""
    slices = in_slice_order(slices)
    places = _places(slices)
    shared = len(slices) - len(set(places))
    if not shared and not _alternates(slices):
        return [slices]
    names = list(dict.fromkeys(name for one in slices for name in one.acquisition))
    ways: list[Callable[[SliceGeometry], Hashable]] = [_value_of(name) for name in names]
    for way in (*ways, lambda one: one.folder):
        parts = _by(slices, way)
        if len(parts) > 1 and _resolves(parts, slices, shared):
            return [stack for part in parts for stack in _split(part)]
    return _by_repeat(slices, places)


def _value_of(name: str) -> Callable[[SliceGeometry], Hashable]:
    return lambda one: one.acquisition.get(name)


def _resolves(parts: Sequence[Slices], slices: Slices, shared: int) -> bool:
    """True if parts are scans of their own: fewer slices share a place, or none did and the parts do not alternate.

    Parts that lie one beside the other are stations of one scan.
    """
    if len(slices) < MINIMUM_SLICES * len(parts) or max(map(_extent, parts)) < _OVERLAP * _extent(slices):
        return False
    parts = [in_slice_order(part) for part in parts]
    left = sum(len(part) - len(set(_places(part))) for part in parts)
    return left < shared or (shared == 0 and not any(_alternates(part) for part in parts))


def _extent(slices: Slices) -> float:
    along = [float(one.position @ slices[0].normal) for one in slices]
    return max(along) - min(along)


def _by_repeat(slices: Slices, places: Sequence[int]) -> list[Slices]:
    """The first slice of every place in the order of their numbers, the second of every place, and so on."""
    counts = set(Counter(places).values())
    numbers = [one.number for one in slices]
    unsure = None in numbers or len(set(numbers)) != len(numbers)
    if len(counts) != 1 or counts == {1} or unsure or len(set(places)) < MINIMUM_SLICES:
        return [slices]
    volumes: list[Slices] = [[] for _ in range(counts.pop())]
    for place in sorted(set(places)):
        here = [one for one, other in zip(slices, places, strict=True) if other == place]
        for volume, one in zip(volumes, sorted(here, key=lambda one: one.number or 0), strict=True):
            volume.append(one)
    return volumes


def _places(slices: Slices) -> list[int]:
    """Number of the place of every slice, for slices in order; those much closer than the others share one."""
    gaps = np.diff([float(one.position @ slices[0].normal) for one in slices])
    apart = gaps[gaps > 2e-3]
    smallest = max(2e-3, _SAME_PLACE * float(np.median(apart))) if apart.size else np.inf
    return [0, *np.cumsum(gaps > smallest).tolist()]


def _alternates(slices: Slices) -> bool:
    """True if two scans seem to lie between each other: the numbers say so, or the acquisitions where these are odd."""
    if _numbers_interleave(slices):
        return True
    numbers = [one.number for one in slices]
    if None not in numbers and _runs(numbers) == 1:
        return False
    acquisitions = [one.acquisition.get("AcquisitionNumber") for one in slices]
    changes = sum(one != other for one, other in itertools.pairwise(acquisitions))
    return changes >= len(set(acquisitions)) > 1


def _numbers_interleave(slices: Sequence[SliceGeometry]) -> bool:
    """True if InstanceNumber repeats, and not because whole stacks follow one another."""
    numbers = [one.number for one in slices]
    counts = Counter(numbers)
    if None in counts or len(counts) in (1, len(numbers)):
        return False
    return _runs(numbers) > max(counts.values())


def _numbers_jump(slices: Sequence[SliceGeometry]) -> bool:
    """True if InstanceNumber goes up and down along the slices more than two parts of one scan explain."""
    numbers = [one.number for one in slices]
    return None not in numbers and len(set(numbers)) > 1 and _runs(numbers) > _PARTS


def _runs(numbers: Sequence[int | None]) -> int:
    """Number of stretches in which numbers rise (or fall, if that makes fewer)."""
    steps = np.diff(np.array(numbers, dtype=np.float64))
    return 1 + int(min((steps <= 0).sum(), (steps >= 0).sum()))


def _by(slices: Sequence[SliceGeometry], key: Callable[[SliceGeometry], Hashable]) -> list[Slices]:
    groups: dict[Hashable, Slices] = {}
    for one in slices:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())
