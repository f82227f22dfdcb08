"""Slices through a point of a volume: axial, coronal and sagittal, as a radiologist looks at them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Shaped

from medpixcl._typing import Array
from medpixcl.coordinates import sample_at
from medpixcl.landmarks.points import outside_image
from medpixcl.reports.panels import Panel, PanelView, as_array, grey_levels, grey_limits, volume_views


@dataclass(frozen=True, kw_only=True)
class MarkedVolume:
    """A volume with its landmarks.

    Attributes:
        image: Volume of shape (i, j, k).
        points: Landmarks in voxels, shape (K, 3), NaN where missing.
        affine: Matrix from voxels to RAS+ mm, (4, 4).
    """

    image: Shaped[Array, "*s"]
    points: Shaped[Array, "k 3"]
    affine: Shaped[Array, "4 4"]

    @cached_property
    def values(self) -> Float[np.ndarray, "*s"]:
        """The volume as an array."""
        return as_array(self.image)

    @cached_property
    def voxels(self) -> Float[np.ndarray, "k 3"]:
        """The landmarks as an array."""
        return as_array(self.points)

    @cached_property
    def spacing(self) -> Float[np.ndarray, "3"]:
        """Size of a voxel in mm along each array axis."""
        return np.linalg.norm(as_array(self.affine)[:3, :3], axis=0)

    @cached_property
    def grey_limits(self) -> tuple[float, float]:
        """Values of the volume that are drawn black and white."""
        return grey_limits(self.values)

    @cached_property
    def side_mm(self) -> float:
        """Side in mm of slices around the landmarks: twice their median distance from their median position.

        Of fewer than three landmarks it is half of the volume's mean extent. It is never less than 16 voxels.
        """
        places = self.voxels * self.spacing
        known = places[~np.isnan(places).any(axis=1)]
        away = np.linalg.norm(known - np.median(known, axis=0), axis=1) if len(known) else known
        typical = np.median(away) if len(known) >= 3 else (np.array(self.values.shape) * self.spacing).mean() / 4
        return max(2 * float(typical), 16 * float(self.spacing.max()))


@dataclass(frozen=True)
class Cut:
    """A square slice through a point of a volume.

    Attributes:
        panel: The slice as it is drawn.
        centre: Voxel in the middle of the slice.
        step: Voxels from one pixel of the slice to the next along each array axis.
    """

    panel: Panel
    centre: Float[np.ndarray, "3"]
    step: Float[np.ndarray, "3"]

    def place(self, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "2"]:
        """Convert a voxel to (x, y) in the slice, in pixels."""
        middle = (len(self.panel.picture) - 1) / 2
        return self.panel.place(((point - self.centre) / self.step + middle)[None])[0]

    def sides_away(self, point: Float[np.ndarray, "3"]) -> float:
        """Distance of a voxel from the plane of the slice, in sides of the slice."""
        away = np.abs(point - self.centre) / self.step / len(self.panel.picture)
        return float(away[_through(self.panel.view)])


def cuts_through(volume: MarkedVolume, centre: Float[np.ndarray, "3"], *, side_mm: float, pixels: int) -> list[Cut]:
    """Cut a volume axially, coronally and sagittally through one point.

    Values between voxels are interpolated, so that the slices hold the point itself. They are black outside of the
    volume.

    Args:
        volume: The volume.
        centre: The point, in voxels.
        side_mm: Side of each slice in mm.
        pixels: Pixels along each side.
    """
    size = side_mm / pixels
    step = size / volume.spacing
    return [
        Cut(Panel(_slice(volume, view, centre, step, pixels), view, (size, size)), centre, step)
        for view in volume_views(as_array(volume.affine))
    ]


def _slice(
    volume: MarkedVolume,
    view: PanelView,
    centre: Float[np.ndarray, "3"],
    step: Float[np.ndarray, "3"],
    pixels: int,
) -> Float[np.ndarray, "rows columns"]:
    """Grey levels of one slice."""
    offsets = np.arange(pixels) - (pixels - 1) / 2
    flat = _through(view)
    lines = [centre[axis] + (np.zeros(1) if axis == flat else offsets) * step[axis] for axis in range(3)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).astype(np.float32)
    points = torch.from_numpy(grid.reshape(-1, 3))
    values = sample_at(torch.from_numpy(volume.values)[None, None], points[None])[0, :, 0]
    values[outside_image(points, volume.values.shape)] = torch.nan
    return view.flatten(grey_levels(values.view(grid.shape[:3]).numpy(), volume.grey_limits), projection="mean")


def _through(view: PanelView) -> int:
    """Array axis along which one looks."""
    (axis,) = {0, 1, 2} - {*view.axes}
    return axis
