"""Assemble DICOM slices into one volume, and refuse slices that do not form one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from medpixcl.data.dicom import is_dicom, is_slice, read_header, read_slice_values, slice_spacing, why_unusable
from medpixcl.data.pixels import ImageFileError, Pixels, ras_affine

if TYPE_CHECKING:
    from pydicom import Dataset

MINIMUM_SLICES = 3
STEP_TOLERANCE = 0.01
"""Largest deviation of a slice distance, and largest shift inside the slice plane, as a fraction of the distance."""
_ROUNDING_MM = 2e-3


@dataclass(frozen=True)
class SliceGeometry:
    """Position and size of one slice (DICOM, LPS+, mm).

    Attributes:
        path: Path of the file.
        series: SeriesInstanceUID, used to group slices and never shown.
        modality: DICOM modality.
        size: Number of rows and columns.
        spacing: Distance in mm between neighbouring rows and between neighbouring columns.
        orientation: Direction of increasing column index, then of increasing row index: six cosines.
        position: Centre of the first pixel in mm.
    """

    path: Path
    series: str
    modality: str
    size: tuple[int, int]
    spacing: tuple[float, float]
    orientation: Float64[np.ndarray, "6"]
    position: Float64[np.ndarray, "3"]

    @property
    def normal(self) -> Float64[np.ndarray, "3"]:
        """Unit vector across the slice."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        return across / np.linalg.norm(across)


def slice_geometry(path: Path, header: "Dataset") -> SliceGeometry:
    """Read the geometry of a slice from its header.

    Raises:
        ImageFileError: If position, orientation or pixel size is missing.
    """
    try:
        orientation = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(6)
        position = np.array(header.ImagePositionPatient, dtype=np.float64).reshape(3)
    except (AttributeError, TypeError, ValueError):
        raise ImageFileError(path, "slice has no ImagePositionPatient or ImageOrientationPatient.") from None
    axes = orientation.reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise ImageFileError(path, "has an ImageOrientationPatient that is not two perpendicular unit vectors.")
    return SliceGeometry(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        modality=str(header.get("Modality") or ""),
        size=(int(header.Rows), int(header.Columns)),
        spacing=slice_spacing(header, path),
        orientation=orientation,
        position=position,
    )


def in_slice_order(slices: Sequence[SliceGeometry]) -> list[SliceGeometry]:
    """Sort along the normal of the first slice."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: float(one.position @ normal))


def why_irregular(slices: Sequence[SliceGeometry]) -> str | None:
    """Explain why sorted slices do not form one volume on a regular grid; None if they do."""
    first = slices[0]
    if len(slices) < MINIMUM_SLICES:
        return f"too few; expected at least {MINIMUM_SLICES} for a volume."
    if len({one.series for one in slices}) > 1:
        return "the slices belong to several series; give those of one."
    if len(sizes := sorted({one.size for one in slices})) > 1:
        return f"the slices differ in size ({sizes}); expected one size."
    if not all(np.allclose(one.orientation, first.orientation, atol=1e-3) for one in slices):
        return "the slices differ in orientation; expected parallel slices."
    if not all(np.allclose(one.spacing, first.spacing, rtol=1e-3) for one in slices):
        return "the slices differ in pixel size; expected one pixel size."
    return _why_uneven(slices)


def _why_uneven(slices: Sequence[SliceGeometry]) -> str | None:
    steps = np.diff([one.position for one in slices], axis=0)
    normal = slices[0].normal
    along = steps @ normal
    across = np.linalg.norm(steps - along[:, None] * normal, axis=1)
    if along.min() < _ROUNDING_MM:
        return f"{int((along < _ROUNDING_MM).sum())} slice(s) lie where another one lies; expected one slice a place."
    distance = float(np.median(along))
    slack = STEP_TOLERANCE * distance + _ROUNDING_MM
    if np.abs(along - distance).max() > slack:
        return f"the slices are {along.min():.2f} to {along.max():.2f} mm apart; expected one distance, is one missing?"
    if across.max() > slack:
        angle = float(np.degrees(np.arctan2(across.max(), distance)))
        return f"the slices are shifted against each other (gantry tilt of {angle:.1f} degrees); resample them first."
    return None


def series_affine(slices: Sequence[SliceGeometry]) -> Float64[np.ndarray, "4 4"]:
    """Compute the matrix from voxel (i, j, k) = (column, row, slice) to mm, RAS+, for sorted slices."""
    first, last = slices[0], slices[-1]
    row_step, column_step = first.spacing
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * column_step
    lps[:3, 1] = first.orientation[3:] * row_step
    lps[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    lps[:3, 3] = first.position
    return ras_affine(lps)


def read_series(files: Sequence[Path]) -> Pixels:
    """Read the slices of one series as a volume (i, j, k) after rescale (HU for CT).

    Raises:
        ImageFileError: If a file is not a slice, cannot be decoded, or the slices do not form one regular volume.
    """
    slices = in_slice_order([_slice_of(path) for path in files])
    where = slices[0].path.parent
    if (reason := why_irregular(slices)) is not None:
        raise ImageFileError(where, f"series of {len(slices)} slice(s): {reason}")
    values = np.stack([read_slice_values(one.path).T for one in slices], axis=-1)
    return Pixels(values, series_affine(slices), "file", slices[0].modality)


def dicom_files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder (not of its subfolders), sorted, without hidden ones."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if is_dicom(path)]


def _slice_of(path: Path) -> SliceGeometry:
    header = read_header(path)
    if (reason := why_unusable(header)) is not None:
        raise ImageFileError(path, reason)
    if not is_slice(header):
        raise ImageFileError(path, "is a DICOM picture, not a slice; give the file itself, not its folder.")
    return slice_geometry(path, header)
