"""Read multi-frame DICOM whose frames are the slices of one volume (enhanced CT, MR, PET, 3D angiography)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medpixcl._typing import Number
from medpixcl.data.dicom_geometry import SliceGeometry, in_slice_order, series_affine, slice_geometry, why_irregular
from medpixcl.data.dicom_header import Header
from medpixcl.data.dicom_pixel_bytes import frame_count
from medpixcl.data.dicom_pixels import modality_values, stored_values
from medpixcl.data.frame_dimensions import frame_dimensions, stacks_of_frames, what_tells_apart
from medpixcl.data.padding import VolumePadding
from medpixcl.data.pixels import ImageFileError, Pixels

if TYPE_CHECKING:
    from pydicom import DataElement
    from pydicom.dataelem import RawDataElement

_MACROS = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "FrameContentSequence", "TemporalPositionSequence", "CardiacSynchronizationSequence", "MREchoSequence",
    "MRDiffusionSequence", "MRModifierSequence", "MRTimingAndRelatedParametersSequence", "MRImageFrameTypeSequence",
    "CTReconstructionSequence", "CTXRayDetailsSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
)  # fmt: skip
"""Private groups repeat some of their elements with other values."""
_OF_THE_FILE = ("PixelData", "NumberOfFrames", "InstanceNumber")
"""Elements that a frame does not take over."""
_SHOWN = 5


def frame_headers(header: Header) -> list[Header]:
    """Header of every frame: the file's elements, under those of the shared and of the frame's functional groups.

    Raises:
        ImageFileError: If the functional groups are fewer or more than the frames.
    """
    frames, groups = frame_count(header), header.items("PerFrameFunctionalGroupsSequence")
    if len(groups) != frames:
        raise ImageFileError(
            header.path,
            f"is a multi-frame DICOM image of {frames} frames with {len(groups)} places in space; expected one a frame "
            "(a film has none). Convert it to NIfTI or to single-frame DICOM.",
        )
    shared = [item for group in header.items("SharedFunctionalGroupsSequence") for item in _macros(group)]
    return [_flattened(header, [*shared, *_macros(group)], number) for number, group in enumerate(groups, start=1)]


def read_multiframe(header: Header, *, tolerance_mm: Number | None = None) -> Pixels:
    """Read the frames of one file as a volume (i, j, k) after each frame's rescale (HU for CT).

    Padding is treated as that of a series (:class:`medpixcl.data.padding.VolumePadding`).

    Args:
        header: Header of the file with its pixel data.
        tolerance_mm: How far in mm a frame may lie from its place on the grid, see
            :func:`medpixcl.data.dicom_geometry.why_irregular`.

    Raises:
        ImageFileError: If the frames cannot be decoded, form several volumes, or none on a regular grid.
    """
    headers = frame_headers(header)
    slices = _only_stack(header, headers, [slice_geometry(one, number) for number, one in enumerate(headers)])
    if (reason := why_irregular(slices, tolerance_mm=tolerance_mm)) is not None:
        raise ImageFileError(header.path, f"multi-frame DICOM image of {len(slices)} frame(s): {reason}")
    stored = stored_values(header)
    values, padding = np.empty((len(slices), *stored.shape[1:]), dtype=np.float32), VolumePadding()
    for place, one in enumerate(slices):
        modality_values(headers[one.frame], stored[one.frame], out=values[place])
        padding.note(place, header, stored[one.frame], values[place])
    padding.fill(values.transpose(2, 1, 0))
    return Pixels(values.transpose(2, 1, 0), series_affine(slices), "file", slices[0].modality)


def _only_stack(header: Header, frames: Sequence[Header], slices: Sequence[SliceGeometry]) -> list[SliceGeometry]:
    """The frames in slice order, if they form one stack."""
    indices = frame_dimensions(header, frames)
    stacks = stacks_of_frames(slices, indices)
    if len(stacks) == 1:
        return in_slice_order(stacks[0])
    sizes = ", ".join(str(len(stack)) for stack in stacks[:_SHOWN]) + (", ..." if len(stacks) > _SHOWN else "")
    differing = ", ".join(what_tells_apart(stacks, indices)) or "the order of the frames alone"
    raise ImageFileError(
        header.path,
        f"is a multi-frame DICOM image of {len(stacks)} volumes (of {sizes} slices), which differ in {differing}; "
        "expected one, convert it to one NIfTI file a volume (dcm2niix does) or to single-frame DICOM.",
    )


def _macros(group: Header) -> Iterator[Header]:
    """The items of a functional group that say where a frame lies, and what it shows."""
    for keyword in _MACROS:
        yield from group.items(keyword)[:1]


def _flattened(header: Header, macros: list[Header], number: int) -> Header:
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword

    flat, left_out = Dataset(), {tag_for_keyword(keyword) for keyword in _OF_THE_FILE}
    for source in (header, *macros):
        for tag, element in source.dataset.items():  # as they stand in the file: what is not asked for is not converted
            if tag not in left_out and not _is_sequence(element):
                flat[tag] = element
    flat.InstanceNumber = number
    return Header(flat, header.path)


def _is_sequence(element: "DataElement | RawDataElement") -> bool:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if element.VR is None and dictionary_has_tag(element.tag):
        return dictionary_VR(element.tag) == "SQ"
    return element.VR == "SQ"
