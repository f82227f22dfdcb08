"""Landmarks of many images as read from files, and the match of a row to its image and voxel."""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, spacing_of, spatial_affine, voxel_to_mm
from medpixcl.data.image_keys import HOW_FOUND, Assignment, ImageKeys
from medpixcl.data.itk_spacing import why_itk_differs
from medpixcl.data.landmarks.row import LandmarkRow
from medpixcl.data.landmarks.same_image import MarkedOn, why_another_image
from medpixcl.data.landmarks.two_positions import why_apart, why_unlike
from medpixcl.data.pixels import MissingSpacingError
from medpixcl.data.text import quoted
from medpixcl.landmarks.points import LandmarkSet, in_plane, outside_image


def positions_px(points: LandmarkSet) -> Float[Tensor, "k d"]:
    """Return voxel positions in file order (x, y[, z]): column, row of a picture; i, j, k of a volume."""
    return points.voxels.flip(1) if points.dims == 2 else points.voxels


def positions_lps_mm(points: LandmarkSet, affine: Float[Tensor, "4 4"]) -> Float[Tensor, "k d"]:
    """Compute physical positions (x, y[, z]) in mm, LPS+.

    Args:
        points: Landmarks in voxels of the image.
        affine: Matrix from voxels to mm, RAS+, (4, 4).
    """
    return flip_ras_lps(voxel_to_mm(points.voxels, spatial_affine(affine, points.dims)))


@dataclass(frozen=True)
class ImageLandmarks:
    """Landmarks of one image with all that the file formats need.

    Attributes:
        image: Name of the image in files: its path relative to them, or its file name.
        points: Landmarks in voxels of the image.
        affine: Matrix from voxels to mm, RAS+, (4, 4).
        shape: Spatial shape of the image.
        files: Files of the image; a DICOM SR refers to them.
        extras: Additional cells of each landmark by column, such as ``{"radius_mm": "2.5"}``; may be empty.
    """

    image: str
    points: LandmarkSet
    affine: Float[Tensor, "4 4"]
    shape: tuple[int, ...]
    files: tuple[Path, ...] = ()
    extras: tuple[dict[str, str], ...] = ()

    @property
    def px(self) -> Float[Tensor, "k d"]:
        """Voxel positions in file order; see :func:`positions_px`."""
        return positions_px(self.points)

    @property
    def lps_mm(self) -> Float[Tensor, "k d"]:
        """Physical positions in mm, LPS+; see :func:`positions_lps_mm`."""
        return positions_lps_mm(self.points, self.affine)


class LandmarkFile:
    """Landmarks of one file or folder.

    Args:
        path: File (or folder) that the rows come from; image paths are relative to its folder.
        rows: Rows in the order of the file.

    Raises:
        ValueError: If an image has a landmark twice.
    """

    def __init__(self, path: str | PathLike[str], rows: Iterable[LandmarkRow]) -> None:
        self.path = Path(path)
        self._rows: dict[str, dict[str, LandmarkRow]] = {}
        for row in rows:
            of_image = self._rows.setdefault(row.image, {})
            if (first := of_image.setdefault(row.landmark, row)) is not row:
                raise ValueError(f"{self._place(row)} stands at {first.line} already; keep one of the two.")
        self._keys = ImageKeys(self.path, self._rows)
        self.names = tuple(dict.fromkeys(name for of_image in self._rows.values() for name in of_image))

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images in the file."""
        return tuple(self._rows)

    @property
    def scored(self) -> bool:
        """True if a landmark has a score, so that a program found the landmarks of the file."""
        return any(row.scored for of_image in self._rows.values() for row in of_image.values())

    def find(self, image_path: str | PathLike[str]) -> str | None:
        """Return the key of one image (:meth:`medpixcl.data.image_keys.ImageKeys.find`); None if it has no rows.

        Raises:
            ValueError: If several images of the file have that name.
        """
        return self._keys.find(image_path)

    def keys_shown(self, image: Path | None = None) -> str:
        """Some names of images in the file, for a message (:meth:`medpixcl.data.image_keys.ImageKeys.shown`)."""
        return self._keys.shown(image)

    def assign(self, images: Iterable[Path]) -> Assignment:
        """Find the key of every image of a set (:meth:`medpixcl.data.image_keys.ImageKeys.assign`).

        Raises:
            ValueError: If several keys fit one image.
        """
        return self._keys.assign(images)

    def for_image(
        self,
        image_path: str | PathLike[str] | Sequence[str],
        affine: Float[Tensor, "4 4"],
        shape: Sequence[int],
        dims: int | None = None,
    ) -> LandmarkSet:
        """Return the landmarks of one image in its voxels.

        Args:
            image_path: Path of the image; for a series given as a list of files, their folder is matched.
            affine: Matrix from voxels to mm, RAS+, (4, 4).
            shape: Spatial shape of the image.
            dims: Expected number of spatial axes, 2 or 3; None accepts both.

        Returns:
            All landmarks that the file names, in order of first appearance; those without a position are NaN.

        Raises:
            ValueError: If the image has no rows, a point has the wrong number of coordinates or lies outside, its
                pixels and mm are different places, or the file says that it was marked on another image.

        Warns:
            UserWarning: If points are in mm, and programs on ITK show the radiograph with another pixel size.
        """
        if dims is not None and dims != len(shape):
            raise ValueError(f"the image has {len(shape)} spatial axes; expected {dims}.")
        if isinstance(image_path, str | PathLike):
            path = Path(image_path)
        else:
            path = Path(os.path.commonpath([Path(one).parent for one in image_path]))
        if (key := self.find(path)) is None:
            raise ValueError(
                f"{self.path} has no landmarks of {'/'.join(path.parts[-2:])}; it has those of "
                f"{self.keys_shown(path)}, and {HOW_FOUND}."
            )
        of_image = self._rows[key]
        self._require_same_image(of_image.values(), path, tuple(shape))
        voxels = [self._voxel(of_image.get(name), affine, len(shape)) for name in self.names]
        points = LandmarkSet(self.names, torch.stack(voxels))
        in_mm = len(shape) == 2 and any(row.px is None and row.mm is not None for row in of_image.values())
        note = why_itk_differs(path) if in_mm else None
        self._require_inside(points, key, shape, note)
        if note is not None:
            warnings.warn(f"{self.path}: {key}: {note}", stacklevel=2)
        return points

    def row(self, image: str, landmark: str) -> LandmarkRow | None:
        """Row of a landmark of an image, one of :attr:`images`; None if it has none."""
        return self._rows[image].get(landmark)

    def in_voxels(self, image: str) -> bool:
        """True if a landmark of an image, one of :attr:`images`, is given in pixels or voxels."""
        return any(row.px is not None for row in self._rows[image].values())

    def flagged(self, flag: str) -> list[str]:
        """Images of the file in which at least one landmark has a flag."""
        return [key for key, of_image in self._rows.items() if any(row.flag == flag for row in of_image.values())]

    def positions_mm(self, spacing_mm: float | None = None) -> dict[str, dict[str, tuple[float, ...]]]:
        """Return positions (x, y[, z]) in mm, LPS+, by image and landmark; missing landmarks are left out.

        Args:
            spacing_mm: Pixel size in mm of rows that have pixels but no spacing.

        Raises:
            MissingSpacingError: If a row has pixels but no spacing, and none is given.
            ValueError: If a row of a volume has voxels only, which have no position in mm without the image, or the
                pixels and mm of an image do not fit each other.
        """
        for of_image in self._rows.values():
            if (odd := why_unlike(list(of_image.values()))) is not None:
                self._require_one_place(*odd)
        return {
            image: {
                name: self._mm(row, spacing_mm)
                for name, row in of_image.items()
                if row.px is not None or row.mm is not None
            }
            for image, of_image in self._rows.items()
        }

    def _voxel(self, row: LandmarkRow | None, affine: Tensor, dims: int) -> Tensor:
        if row is None or (row.px is None and row.mm is None):
            return torch.full((dims,), math.nan, dtype=torch.float64)
        matrix = spatial_affine(affine, dims)
        ras = None if row.mm is None else flip_ras_lps(self._coordinates(row, row.mm, dims)[None])
        if row.px is None:
            assert ras is not None
            return mm_to_voxel(ras, matrix)[0]
        position = self._coordinates(row, row.px, dims)
        voxel = position.flip(0) if dims == 2 else position
        if ras is not None:
            reason = why_apart(row, voxel_to_mm(voxel[None], matrix)[0], ras[0], float(spacing_of(matrix).max()))
            self._require_one_place(row, reason)
        return voxel

    def _place(self, row: LandmarkRow) -> str:
        """A landmark, for a message."""
        return f"{self.path}: {row.line}: landmark {quoted(row.landmark)} of {quoted(row.image)}"

    def _require_one_place(self, row: LandmarkRow, why_not: str | None) -> None:
        if why_not is not None:
            raise ValueError(f"{self._place(row)} {why_not}")

    def _coordinates(self, row: LandmarkRow, position: tuple[float, ...], dims: int) -> Tensor:
        values = in_plane(position, dims)
        if len(values) != dims:
            raise ValueError(f"{self._place(row)} lies at {values}; expected {dims} coordinates for a {dims}D image.")
        return torch.tensor(values, dtype=torch.float64)

    def _require_same_image(self, rows: Iterable[LandmarkRow], image: Path, shape: tuple[int, ...]) -> None:
        first: dict[MarkedOn | None, LandmarkRow] = {}
        for row in rows:
            first.setdefault(row.marked_on, row)
        for marked_on, row in first.items():
            if marked_on is not None and (reason := why_another_image(marked_on, image, shape)) is not None:
                raise ValueError(f"{self.path}: {row.line}: landmark {quoted(row.landmark)} {reason}")

    def _require_inside(self, points: LandmarkSet, image: str, shape: Sequence[int], note: str | None) -> None:
        for index in outside_image(points.voxels, shape).nonzero().flatten().tolist():
            position = ", ".join(f"{value:.1f}" for value in points.voxels[index].tolist())
            row = self._rows[image][points.names[index]]
            raise ValueError(
                f"{self._place(row)} lies at voxel ({position}), outside "
                f"the image of size {tuple(shape)}; {note or 'check spacing, orientation and axis order.'}"
            )

    def _mm(self, row: LandmarkRow, spacing_mm: float | None) -> tuple[float, ...]:
        if row.mm is not None:
            return row.mm
        assert row.px is not None
        if len(row.px) == 3:
            raise ValueError(f"{self.path}: {row.line}: a volume's voxel has no position in mm; add x_mm, y_mm, z_mm.")
        if (size := row.spacing_mm or spacing_mm) is None:
            raise MissingSpacingError(
                self.path, f"{row.line}: position in pixels without spacing_mm; add that column, or give mm."
            )
        return tuple(value * size for value in row.px)
