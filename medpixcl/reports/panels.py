"""Flat views of an image: the image itself in 2D, three orthogonal projections of a volume.

A panel knows the place of a voxel in its picture, so that points and maps can be drawn over it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from medpixcl._typing import Array

Reduction = Literal["mean", "max"]
_REDUCTIONS: dict[Reduction, Callable[..., np.ndarray]] = {"mean": np.nanmean, "max": np.nanmax}
_VIEWS = (("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1))
"""Title, and the world axis (0 left-right, 1 back-front, 2 feet-head) that runs down and to the right."""
_ENDS = ("RL", "AP", "SI")


def as_array(data: Shaped[Array, "*s"]) -> Float[np.ndarray, "*s"]:
    """Convert an array or a tensor (any device, any precision, also MONAI's) to a float32 NumPy array."""
    tensor = data if isinstance(data, Tensor) else torch.from_numpy(np.ascontiguousarray(data))
    return tensor.detach().float().cpu().numpy()


def as_flags(data: Shaped[Array, "*s"] | Sequence[bool]) -> Bool[np.ndarray, "*s"]:
    """Convert an array, a tensor or a list of flags to a boolean NumPy array."""
    return torch.as_tensor(data).detach().cpu().numpy().astype(bool)


@dataclass(frozen=True, kw_only=True)
class PanelView:
    """Direction of view on an image.

    Attributes:
        axes: Array axis that runs down and array axis that runs to the right.
        flips: Whether the picture runs against each of the two axes.
        title: Name of the view; may be empty.
        ends: Anatomical letters at the left, right, top and bottom; empty if unknown.
    """

    axes: tuple[int, int] = (0, 1)
    flips: tuple[bool, bool] = (False, False)
    title: str = ""
    ends: str = ""

    def flatten(self, values: Float[np.ndarray, "*s"], *, projection: Reduction) -> Float[np.ndarray, "rows columns"]:
        """Flatten an image in this view; a volume is projected along the third axis."""
        through = tuple({*range(values.ndim)} - {*self.axes})
        flat = _REDUCTIONS[projection](values, axis=through) if through else values
        upright = flat if self.axes[0] < self.axes[1] else flat.T
        down, right = (-1 if flip else 1 for flip in self.flips)
        return upright[::down, ::right]


@dataclass(frozen=True)
class Panel:
    """A picture to draw.

    Attributes:
        picture: Grey levels from 0 to 1, shape (rows, columns).
        view: Direction of view on the image.
        spacing: Size in mm of a pixel down and to the right.
    """

    picture: Float[np.ndarray, "rows columns"]
    view: PanelView
    spacing: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width in mm."""
        return self.picture.shape[0] * self.spacing[0], self.picture.shape[1] * self.spacing[1]

    def place(self, points: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k 2"]:
        """Convert voxel positions to (x, y) in the picture: column and row."""
        row, column = (
            self.picture.shape[side] - 1 - points[:, axis] if self.view.flips[side] else points[:, axis]
            for side, axis in enumerate(self.view.axes)
        )
        return np.stack([column, row], axis=-1)

    def shadow(self, regions: Float[np.ndarray, "k d d"]) -> Float[np.ndarray, "k 2 2"]:
        """Convert regions in mm^2 along the array axes to their outlines in the picture, (x, y) in pixels.

        The outline of an ellipsoid seen along an axis is the ellipse of its matrix without that axis.
        """
        return self._in_pixels(regions[:, self.view.axes][:, :, self.view.axes])

    def section(self, regions: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 2 2"]:
        """Convert ellipsoids in mm^2 along the array axes to where a plane through their centres cuts them, in pixels.

        The form is that of :meth:`shadow`.
        """
        (through,) = {0, 1, 2} - {*self.view.axes}
        across = regions[:, self.view.axes, through]
        seen = regions[:, self.view.axes][:, :, self.view.axes]
        return self._in_pixels(seen - across[:, :, None] * across[:, None] / regions[:, through, through, None, None])

    def _in_pixels(self, seen: Float[np.ndarray, "k 2 2"]) -> Float[np.ndarray, "k 2 2"]:
        """Ellipses in mm^2 along the axes of the view as ellipses (x, y) in pixels."""
        steps = np.array([-1 if flip else 1 for flip in self.view.flips]) / np.array(self.spacing)
        return (seen * steps[:, None] * steps)[:, ::-1, ::-1]


def panels(
    image: Shaped[Array, "*s"],
    *,
    spacing: Sequence[float] | None = None,
    affine: Shaped[Array, "n n"] | None = None,
) -> list[Panel]:
    """Make one panel of a 2D image, or three mean projections of a volume: along k, j and i of an RAS+ array.

    Args:
        image: Image without channel axis, shape (rows, columns) or (i, j, k).
        spacing: Size of a voxel in mm along each array axis; 1 by default.
        affine: Matrix from voxels to RAS+ mm, which replaces ``spacing``. Whatever the order of its axes, a volume is
            then shown in the radiological way (the patient's right at the left, head up) as axial, coronal, sagittal.

    Raises:
        ValueError: If the image is neither 2D nor 3D.
    """
    values = as_array(image)
    if values.ndim not in (2, 3):
        raise ValueError(f"found an image of {values.ndim} axes; expected (rows, columns) or (i, j, k), no channels.")
    matrix = None if affine is None else as_array(affine)
    if matrix is not None:
        spacing = np.linalg.norm(matrix[:3, : values.ndim], axis=0).tolist()
    sizes = [1.0] * values.ndim if spacing is None else list(map(float, spacing))
    views = [PanelView()] if values.ndim == 2 else volume_views(matrix)
    return [
        Panel(grey_levels(view.flatten(values, projection="mean")), view, (sizes[view.axes[0]], sizes[view.axes[1]]))
        for view in views
    ]


def front_panel(image: Shaped[Array, "*s"], limits: tuple[float, float] | None = None) -> Panel:
    """The picture of a 2D image, or the middle coronal slice of an RAS+ volume (i, j, k), its pixels square.

    Args:
        image: Image without channel axis.
        limits: Values that are drawn black and white, by default the :func:`grey_limits` of the picture.
    """
    values = as_array(image)
    if values.ndim == 2:
        return Panel(grey_levels(values, limits), PanelView(), (1.0, 1.0))
    middle = values.shape[1] // 2
    view = volume_views(None)[1]
    return Panel(grey_levels(view.flatten(values[:, [middle]], projection="mean"), limits), view, (1.0, 1.0))


def volume_views(affine: Float[np.ndarray, "4 4"] | None) -> list[PanelView]:
    """Choose axial, coronal and sagittal views by the array axes nearest to the anatomical ones.

    Pictures run to the left, the back and the feet. Without an affine the array is taken as RAS+, and the views have no
    anatomical names.
    """
    from nibabel.orientations import io_orientation

    orientation = io_orientation(np.eye(4) if affine is None else affine)
    array_axis = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)]
    towards_ras = [bool(orientation[axis, 1] > 0) for axis in array_axis]
    return [
        PanelView(
            axes=(array_axis[down], array_axis[right]),
            flips=(towards_ras[down], towards_ras[right]),
            title="" if affine is None else title,
            ends="" if affine is None else _ENDS[right] + _ENDS[down],
        )
        for title, down, right in _VIEWS
    ]


def grey_limits(values: Float[np.ndarray, "*s"]) -> tuple[float, float]:
    """Find the values below and above which half a percent lies."""
    low, high = np.nanpercentile(values, [0.5, 99.5])
    return float(low), float(high)


def grey_levels(values: Float[np.ndarray, "*s"], limits: tuple[float, float] | None = None) -> Float[np.ndarray, "*s"]:
    """Stretch values to 0 and 1 between limits, by default their :func:`grey_limits`; NaN becomes 0."""
    low, high = grey_limits(values) if limits is None else limits
    return np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12), 0, 1)
