"""Where a DICOM slice lies, and whether several form one volume on a regular grid."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from medpixcl._typing import Number
from medpixcl.data.dicom_header import Header
from medpixcl.data.pixels import ImageFileError, MissingSpacingError, ras_affine

MINIMUM_SLICES = 3
POSITION_TOLERANCE = 0.1
"""How far a slice may lie from its place on the regular grid, as a fraction of the slice distance.

Scanners round positions, to a tenth of a millimetre at worst; a slice that is missing moves others by a fifth of the
distance at least.
"""
LARGEST_TOLERANCE = 0.5
"""Fraction of the slice distance that a tolerance given in mm must stay below: a missing slice could hide in it."""
TILT_TOLERANCE = 0.01
"""Largest shift of the slices inside their plane, as a fraction of their distance; more is a gantry tilt."""
_ROUNDING_MM = 2e-3
_ONE = {"orientation": "parallel slices", "pixel size": "one pixel size", "image type": "one ImageType"}
_SPLITTING = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "EchoNumbers", "EchoTime",
    "EffectiveEchoTime", "DiffusionBValue", "TriggerTime", "FrameReferenceTime", "InversionTime", "FlipAngle",
    "ConvolutionKernel", "KVP", "SliceThickness", "StackID", "ComplexImageComponent",
    "NominalCardiacTriggerDelayTime",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """Position and size of one slice (DICOM, LPS+, mm), and what tells its scan from others.

    Attributes:
        file: Path of the file as text: many paths are large.
        series: SeriesInstanceUID; it groups slices and is never shown, like all identifiers here.
        modality: DICOM modality.
        size: Number of rows and columns.
        spacing: Distance in mm between neighbouring rows and between neighbouring columns.
        orientation: Direction of increasing column index, then of increasing row index: six cosines.
        position: Centre of the first pixel in mm.
        frame: Number of the frame in its file, from 0.
        scan: What all slices of one scan share: digest of the patient, study, frame of reference, series number.
        image_type: ImageType (of a frame its FrameType), such as ORIGINAL, PRIMARY, AXIAL.
        number: InstanceNumber; None if absent.
        instance: SOPInstanceUID.
        acquisition: Values by attribute that may tell acquisitions, time points or echoes apart.
    """

    file: str
    series: str
    modality: str
    size: tuple[int, int]
    spacing: tuple[float, float]
    orientation: Float64[np.ndarray, "6"]
    position: Float64[np.ndarray, "3"]
    frame: int = 0
    scan: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    number: int | None = None
    instance: str = ""
    acquisition: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self.file)

    @property
    def folder(self) -> str:
        """Folder of the file as text."""
        return os.path.dirname(self.file)  # noqa: PTH120 - a hundred thousand times

    @property
    def normal(self) -> Float64[np.ndarray, "3"]:
        """Unit vector across the slice."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        return across / np.linalg.norm(across)


def slice_geometry(header: Header, frame: int = 0) -> SliceGeometry:
    """Read the geometry of a slice from its header.

    Args:
        header: Header of the file, or of one frame (:func:`medpixcl.data.multiframe.frame_headers`).
        frame: Number of the frame in its file, from 0.

    Raises:
        ImageFileError: If position, orientation or pixel size is missing or malformed.
    """
    found = header.numbers("ImageOrientationPatient", 6), header.numbers("ImagePositionPatient", 3)
    if found[0] is None or found[1] is None:
        absent = "ImageOrientationPatient" if found[0] is None else "ImagePositionPatient"
        raise ImageFileError(header.path, f"slice has no {absent}; its place in space is unknown.")
    orientation, position = np.array(found[0]), np.array(found[1])
    axes = orientation.reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise ImageFileError(header.path, "has an ImageOrientationPatient that is not two perpendicular unit vectors.")
    study = (header.text(keyword) for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber"))
    return SliceGeometry(
        file=str(header.path),
        series=header.text("SeriesInstanceUID"),
        modality=header.code("Modality"),
        size=(header.whole("Rows") or 0, header.whole("Columns") or 0),
        spacing=slice_spacing(header),
        orientation=orientation,
        position=position,
        frame=frame,
        scan=(header.patient(), *study),
        image_type=header.texts("FrameType") or header.texts("ImageType"),
        number=_number(header),
        instance=header.text("SOPInstanceUID"),
        acquisition={keyword: text for keyword in _SPLITTING if (text := header.text(keyword))},
    )


def slice_spacing(header: Header) -> tuple[float, float]:
    """Distance in mm of neighbouring rows and of neighbouring columns of a slice."""
    found = header.numbers("PixelSpacing", 2)
    if found is None:
        raise MissingSpacingError(header.path, "slice has no PixelSpacing; expected the size of a pixel in mm.")
    if min(found) <= 0:
        raise ImageFileError(header.path, f"has PixelSpacing {list(found)}; expected two positive sizes in mm.")
    return found[0], found[1]


def checked_tolerance(tolerance_mm: Number | None) -> float | None:
    """Check how far, in mm, slices may lie from their places; None stands for ``POSITION_TOLERANCE``.

    Raises:
        ValueError: If it is not a positive number.
    """
    if tolerance_mm is None:
        return None
    if isinstance(tolerance_mm, bool) or not isinstance(tolerance_mm, int | float) or not 0 < tolerance_mm < np.inf:
        raise ValueError(f"tolerance_mm is {tolerance_mm!r}; expected a positive number in mm.")
    return float(tolerance_mm)


def in_slice_order(slices: Sequence[SliceGeometry]) -> list[SliceGeometry]:
    """Sort along the normal of the first slice."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: float(one.position @ normal))


def differing(one: SliceGeometry, other: SliceGeometry) -> str | None:
    """Name the first property by which two slices cannot lie in one volume; None if there is none."""
    if one.size != other.size:
        return "size"
    if not np.allclose(one.orientation, other.orientation, atol=1e-3):
        return "orientation"
    if not np.allclose(one.spacing, other.spacing, rtol=1e-3):
        return "pixel size"
    return "image type" if one.image_type != other.image_type else None


def why_irregular(
    slices: Sequence[SliceGeometry], *, tilted: bool = False, tolerance_mm: Number | None = None
) -> str | None:
    """Explain why sorted slices do not form one volume on a regular grid; None if they do.

    Args:
        slices: Slices in the order of :func:`in_slice_order`.
        tilted: Accept slices that are shifted evenly inside their plane, as a tilted gantry takes them.
        tolerance_mm: How far in mm a slice may lie from its place; ``POSITION_TOLERANCE`` by default. It hides no
            missing slice.
    """
    first = slices[0]
    if len(slices) < MINIMUM_SLICES:
        return f"too few; expected at least {MINIMUM_SLICES} for a volume."
    if len({one.series for one in slices}) > 1:
        return "the slices belong to several series; give those of one."
    for one in slices:
        if (what := differing(one, first)) == "size":
            return f"the slices differ in size ({sorted({other.size for other in slices})}); expected one size."
        if what is not None:
            return f"the slices differ in {what}; expected {_ONE[what]}."
    return _why_uneven(slices, tilted, tolerance_mm)


def is_tilted(slices: Sequence[SliceGeometry], tolerance_mm: Number | None = None) -> bool:
    """True if a tilted gantry is all that keeps sorted slices from a regular grid."""
    if why_irregular(slices, tolerance_mm=tolerance_mm) is None:
        return False
    return why_irregular(slices, tilted=True, tolerance_mm=tolerance_mm) is None


def slice_step(slices: Sequence[SliceGeometry]) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Position of the first of sorted slices and step to the next, in mm, LPS+: the line that fits all best."""
    index = np.arange(len(slices)) - (len(slices) - 1) / 2
    positions = np.array([one.position for one in slices])
    step = index @ positions / (index @ index)
    return positions.mean(axis=0) + index[0] * step, step


def series_affine(slices: Sequence[SliceGeometry]) -> Float64[np.ndarray, "4 4"]:
    """Compute the matrix from voxel (i, j, k) = (column, row, slice) to mm, RAS+, for sorted slices."""
    first = slices[0]
    row_step, column_step = first.spacing
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * column_step
    lps[:3, 1] = first.orientation[3:] * row_step
    lps[:3, 3], lps[:3, 2] = slice_step(slices)
    return ras_affine(lps)


def tilt_degrees(slices: Sequence[SliceGeometry]) -> float:
    """Angle between the line through the sorted slices and the normal of the first."""
    _, step = slice_step(slices)
    along = float(step @ slices[0].normal)
    return float(np.degrees(np.arctan2(np.linalg.norm(step - along * slices[0].normal), along)))


def _why_uneven(slices: Sequence[SliceGeometry], tilted: bool, tolerance_mm: Number | None) -> str | None:
    normal = slices[0].normal
    along = np.diff([one.position for one in slices], axis=0) @ normal
    if along.min() < _ROUNDING_MM:
        return f"{int((along < _ROUNDING_MM).sum())} slice(s) lie where another one lies; expected one slice a place."
    start, step = slice_step(slices)
    distance = float(step @ normal)
    if tolerance_mm is not None and tolerance_mm >= LARGEST_TOLERANCE * distance:
        return (
            f"the tolerance of {tolerance_mm:g} mm is half of the slice distance ({distance:.2f} mm) or more, so that "
            f"a missing slice could hide in it; give tolerance_mm below {LARGEST_TOLERANCE * distance:.2f}."
        )
    allowed = POSITION_TOLERANCE * distance + _ROUNDING_MM if tolerance_mm is None else tolerance_mm
    places = start + np.arange(len(slices))[:, None] * step
    away = np.array([one.position for one in slices]) - places
    if np.abs(away @ normal).max() > allowed:
        return (
            f"the slices are {along.min():.2f} to {along.max():.2f} mm apart; expected one distance, with every slice "
            f"within {allowed:.2f} mm of its place (rounding), is one missing?"
        )
    if tolerance_mm is not None and _fit_with_gaps(along):
        return (
            f"the slices are {along.min():.2f} to {along.max():.2f} mm apart, which a missing slice explains better "
            f"than places that are up to {allowed:.2f} mm off; add the slice."
        )
    if np.linalg.norm(away, axis=1).max() > allowed:
        return "the slices are shifted unevenly against each other; expected them on one straight line."
    across = float(np.linalg.norm(step - distance * normal))
    if across > TILT_TOLERANCE * distance + _ROUNDING_MM and not tilted:
        return (
            f"the slices are shifted against each other (gantry tilt of {tilt_degrees(slices):.1f} degrees); resample "
            "them with `medpixcl scan --resample-tilt`."
        )
    return None


def _fit_with_gaps(along: Float64[np.ndarray, " n"]) -> bool:
    """True if slices at these distances fit a grid of which some places are empty better than one that is full."""
    full = _farthest(along, np.ones_like(along))
    steps = (float(along.min()), statistics.median_low(along.tolist()))
    counts = (np.maximum(1, np.round(along / step)) for step in steps)
    return any(bool((count > 1).any()) and _farthest(along, count) < full for count in counts)


def _farthest(along: Float64[np.ndarray, " n"], steps: Float64[np.ndarray, " n"]) -> float:
    """Largest distance in mm of slices from their places, so many steps apart, on the grid that fits them best."""
    places, found = (np.concatenate([[0.0], np.cumsum(one)]) for one in (steps, along))
    places, found = places - places.mean(), found - found.mean()
    return float(np.abs(found - places * (places @ found) / (places @ places)).max())


def _number(header: Header) -> int | None:
    try:
        return header.whole("InstanceNumber")
    except ImageFileError:  # it only helps to tell scans apart
        return None
