"""Tell the volumes of a multi-frame DICOM file apart: stacks, time points, b-values, echoes, and what names them."""

import itertools
from collections.abc import Mapping, Sequence

from medpixcl.data.dicom_geometry import SliceGeometry, differing, in_slice_order
from medpixcl.data.dicom_groups import stacks_of
from medpixcl.data.dicom_header import Header

_PLACES = frozenset(
    ("InStackPositionNumber", "ImagePositionPatient", "ImagePositionVolume", "PlanePositionSequence", "SliceLocation",
     "PlanePositionVolumeSequence", "FrameAcquisitionDateTime", "FrameReferenceDateTime", "ReferencedFrameNumber")
)  # fmt: skip
"""Dimensions that number the slices of one volume."""


def frame_dimensions(header: Header, frames: Sequence[Header]) -> list[dict[str, float]]:
    """Index of every frame along the dimensions that the file declares (PS3.3 C.7.6.17), without those of its place.

    Args:
        header: Header of the file.
        frames: Headers of the frames (:func:`medpixcl.data.multiframe.frame_headers`).

    Returns:
        Index by keyword for each frame; empty where the file declares none.
    """
    names = [item.pointed("DimensionIndexPointer") for item in header.items("DimensionIndexSequence")]
    found = []
    for frame in frames:
        values = frame.numbers("DimensionIndexValues") or ()
        indices = zip(names, values, strict=True) if len(names) == len(values) else ()
        found.append({name: value for name, value in indices if name and name not in _PLACES})
    return found


def stacks_of_frames(
    slices: Sequence[SliceGeometry], indices: Sequence[Mapping[str, float]]
) -> list[list[SliceGeometry]]:
    """Split frames by orientation, size and type, and by declared dimensions unless these lie one beside the other.

    Args:
        slices: Geometry of all frames, in their order in the file.
        indices: Their dimensions (:func:`frame_dimensions`).
    """
    stacks = stacks_of(slices)
    if len(stacks) > 1:
        return stacks
    keys = [tuple(one.items()) for one in indices]
    along = [keys[one.frame] for one in in_slice_order(stacks[0])]
    runs = 1 + sum(one != other for one, other in itertools.pairwise(along))
    if runs == len(set(keys)) or len(set(keys)) == len(slices):  # parts of one volume, or a number for every slice
        return stacks
    return [[one for one in slices if keys[one.frame] == key] for key in dict.fromkeys(keys)]


def what_tells_apart(stacks: Sequence[Sequence[SliceGeometry]], indices: Sequence[Mapping[str, float]]) -> list[str]:
    """Names of what differs between stacks of frames, of attributes with the number of their values."""
    shapes = [what for stack in stacks[1:] if (what := differing(stack[0], stacks[0][0])) is not None]
    known = [[{**indices[one.frame], **one.acquisition} for one in stack] for stack in stacks]
    names = sorted({name for stack in known for one in stack for name in one})
    values = {name: [{one.get(name) for one in stack} for stack in known] for name in names}
    counts = {name: len(set.union(*found)) for name, found in values.items() if max(map(len, found)) == 1}
    return [*dict.fromkeys(shapes), *(f"{name} ({count} values)" for name, count in counts.items() if count > 1)]
