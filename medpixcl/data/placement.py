"""Place of a volume's voxels in space as its file states it, and the picture that a volume of one slice holds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from medpixcl.data.pixels import ImageFileError, Pixels, SpacingMM, ras_affine

_PLANES = {2: [[1, 0, 0], [0, 1, 0]], 1: [[1, 0, 0], [0, 0, -1]], 0: [[0, 1, 0], [0, 0, -1]]}
"""Axes (x, y) of a picture in LPS, by the axis across its plane: x runs to the left or back, y to the back or feet."""


@dataclass(frozen=True)
class VolumePlacement:
    """Place of the voxels of a volume.

    Attributes:
        directions: Unit vectors of the three array axes as columns, RAS+.
        sizes: Size of a voxel in mm along the array axes; NaN where the file does not state it.
        origin: Position of the first voxel in mm, RAS+.
        notices: Sentences about what a person should know of this placement.
    """

    directions: Float64[np.ndarray, "3 3"]
    sizes: Float64[np.ndarray, "3"]
    origin: Float64[np.ndarray, "3"]
    notices: tuple[str, ...] = ()


def unit_steps(steps: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """Columns brought to length 1; NaN for a column of length 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return steps / np.linalg.norm(steps, axis=0)


def volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape (i, j, k) of one volume: axes of length one beyond the third are dropped, those that are missing added.

    Raises:
        ImageFileError: If an axis has no length, or there are several volumes.
    """
    if 0 in shape:
        raise ImageFileError(path, f"has an axis of length 0 (shape {shape}); export it again.")
    if any(size != 1 for size in shape[3:]):
        raise ImageFileError(
            path, f"holds a {len(shape)}D image of shape {shape}; expected one volume, save each as a file of its own."
        )
    i, j, k = (*shape, 1, 1)[:3]
    return i, j, k


def placed_pixels(
    path: Path,
    values: Float32[np.ndarray, "*s"],
    placement: VolumePlacement,
    spacing_mm: SpacingMM | None,
    *,
    flat: bool = False,
) -> Pixels:
    """Combine voxels and their placement into an image of two or three axes.

    Args:
        path: File of the image, for messages.
        values: Voxels, shape (i, j, k) or with further axes of length 1.
        placement: Place of the voxels.
        spacing_mm: Voxel size in mm for axes whose size the file does not state: one number, or one for each array
            axis of the result.
        flat: Whether the file declares a 2D image; else an axis of length 1 is mentioned in a notice.

    Returns:
        A volume (i, j, k); of a volume of one slice the picture (row, column). Without an affine if a size is missing.

    Raises:
        ImageFileError: If there are several volumes, no voxels, or a single line of them, or the affine is useless.
    """
    values = values.reshape(volume_shape(path, values.shape), order="F")
    lps = ras_affine(_matrix(placement))
    if not np.isfinite(lps).all() or abs(np.linalg.det(lps[:3, :3])) < 1e-6:
        raise ImageFileError(path, "has an affine that cannot be inverted; set its spacing and orientation.")
    sizes, notices, single = placement.sizes, placement.notices, [n for n, size in enumerate(values.shape) if size == 1]
    if len(single) > 1:
        raise ImageFileError(path, f"holds a line of {values.size} value(s); expected a picture or a volume.")
    if single:
        values, lps, sizes = _as_picture(values, lps, sizes, single[0])
        if not flat:
            what = "is a volume of one slice; it is read as a 2D picture, and its mm are those of the picture's plane."
            notices = (*notices, what)
    source = "file"
    if np.isnan(sizes).any():
        if spacing_mm is None:
            return Pixels(values, None, "unknown", notices=notices)
        sizes, source = np.where(np.isnan(sizes), _given(path, spacing_mm, len(sizes)), sizes), "given"
    lps[:, : len(sizes)] *= sizes
    return Pixels(values, ras_affine(lps), source, notices=notices)


def _matrix(placement: VolumePlacement) -> Float64[np.ndarray, "4 4"]:
    """Matrix of unit steps, RAS+."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = placement.directions, placement.origin
    return matrix


def _as_picture(
    values: Float32[np.ndarray, "i j k"],
    lps: Float64[np.ndarray, "4 4"],
    sizes: Float64[np.ndarray, "3"],
    single: int,
) -> tuple[Float32[np.ndarray, "rows columns"], Float64[np.ndarray, "4 4"], Float64[np.ndarray, "2"]]:
    """The slice as (row, column): the later array axis becomes the rows, as in ITK; and its place in its own plane."""
    rows, columns = [axis for axis in (2, 1, 0) if axis != single]
    plane = np.array(_PLANES[int(np.abs(lps[:3, single]).argmax())], dtype=np.float64)
    left, _, right = np.linalg.svd(plane @ lps[:3, [rows, columns]])
    flat = np.eye(4)
    flat[:2, :2], flat[:2, 3] = left @ right, plane @ lps[:3, 3]
    return values.squeeze(single).T, flat, sizes[[rows, columns]]


def _given(path: Path, spacing_mm: SpacingMM, dims: int) -> Float64[np.ndarray, " n"]:
    try:
        sizes = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), dims)
    except ValueError:
        raise ImageFileError(
            path, f"needs a voxel size of one number or of {dims}; the size given is {spacing_mm}."
        ) from None
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ImageFileError(path, f"needs voxel sizes above 0 mm; the size given is {spacing_mm}.")
    return sizes
