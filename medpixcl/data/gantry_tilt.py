"""Resample the slices of a tilted CT gantry to a regular grid, by their geometry alone."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from medpixcl._typing import Number
from medpixcl.data.dicom_geometry import SliceGeometry, is_tilted, slice_step
from medpixcl.data.nifti_writing import write_nifti
from medpixcl.data.pixels import Pixels, ras_affine
from medpixcl.data.series import read_series, series_geometry
from medpixcl.data.sources import Source


class TiltResampling:
    """Writes every series with gantry tilt as a NIfTI volume on a regular grid.

    Args:
        folder: Folder of the new volumes. Each has the path of its series below it, and replaces that of an earlier
            scan.
        base_dir: Folder that the paths of the series start from.
        tolerance_mm: How far in mm a slice may lie from its place, see :func:`medpixcl.data.images.read_image`.
    """

    def __init__(self, folder: Path, base_dir: Path, tolerance_mm: Number | None = None) -> None:
        self.folder, self.base_dir, self.tolerance_mm = folder, base_dir, tolerance_mm
        self._written: set[Path] = set()

    def __call__(self, source: Source) -> Source:
        """Return the resampled volume of a tilted series, and any other image as it is.

        Raises:
            ImageFileError: If a slice cannot be read.
        """
        if not source.is_series or not is_tilted(slices := series_geometry(source.files), self.tolerance_mm):
            return source
        path = self._path(source.place)
        volume = untilted(read_series(source.files, tilted=True, tolerance_mm=self.tolerance_mm), slices)
        assert volume.affine is not None
        write_nifti(path, volume.values, volume.affine)
        return _resampled(source, path, slices[0].modality)

    def known(self, source: Source, path: Path, modality: str) -> Source:
        """Return the volume that an earlier scan resampled, whose file is not written again.

        Args:
            source: Tilted series.
            path: Volume that was made from it.
            modality: DICOM modality of the series.
        """
        self._written.add(path)
        return _resampled(source, path, modality)

    def _path(self, place: Path) -> Path:
        """Path of a new volume; several volumes of one folder are numbered."""
        below = place.relative_to(self.base_dir) if place != self.base_dir else Path(place.name)
        names = itertools.chain([below.name], (f"{below.name}_{number}" for number in itertools.count(2)))
        path = next(
            path for name in names if (path := self.folder / below.parent / f"{name}.nii.gz") not in self._written
        )
        self._written.add(path)
        return path


def _resampled(source: Source, path: Path, modality: str) -> Source:
    return Source(path, (path,), source.series, made_from=source, modality=modality)


def untilted(tilted: Pixels, slices: Sequence[SliceGeometry]) -> Pixels:
    """Move every slice inside its plane to where a grid at right angles has its pixels (linear interpolation).

    The grid keeps the pixel size, the orientation of the slices and their distance, and is wide enough for all of them;
    what lies outside of a slice gets the lowest value of the volume.

    Args:
        tilted: Volume (i, j, k) of the slices as they are.
        slices: Geometry of the slices, in order.
    """
    first, (start, step) = slices[0], slice_step(slices)
    axes = first.orientation.reshape(2, 3)
    sizes = np.array([first.spacing[1], first.spacing[0]])
    distance = float(step @ first.normal)
    shift = axes @ step / sizes  # pixels (i, j) from slice to slice
    ends = shift * (len(slices) - 1)
    before, after = np.floor(np.minimum(ends, 0)).astype(int), np.ceil(np.maximum(ends, 0)).astype(int)
    shape = (np.array(tilted.values.shape[:2]) - before + after).tolist()
    values = np.empty((*shape, len(slices)), dtype=np.float32)
    fill = float(tilted.values.min())
    for k in range(len(slices)):
        values[:, :, k] = _placed(tilted.values[:, :, k], k * shift - before, shape, fill)
    lps = np.eye(4)
    lps[:3, :2] = (axes * sizes[:, None]).T
    lps[:3, 2] = distance * first.normal
    lps[:3, 3] = start + lps[:3, :2] @ before
    return Pixels(values, ras_affine(lps), tilted.spacing_source, tilted.modality)


def _placed(
    image: Float32[np.ndarray, "i j"], at: np.ndarray, shape: Sequence[int], fill: float
) -> Float32[np.ndarray, "p q"]:
    """Lay an image on a larger one, its first pixel at a place between the pixels."""
    (row, column), (down, right) = np.floor(at).astype(int).tolist(), (at - np.floor(at)).tolist()
    canvas = np.full((shape[0] + 2, shape[1] + 2), fill, dtype=np.float32)
    canvas[row + 1 : row + 1 + image.shape[0], column + 1 : column + 1 + image.shape[1]] = image
    rows = (1 - down) * canvas[1:-1] + down * canvas[:-2]
    return (1 - right) * rows[:, 1:-1] + right * rows[:, :-2]
