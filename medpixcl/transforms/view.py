"""One random view of an image and of what lies on its grid, in one resampling."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from medpixcl.coordinates import working_spacing
from medpixcl.views import View, ViewRanges, resample, view_positions


class RandViewd(MapTransform, Randomizable):
    """A random crop, turn, scale and bend of an image, in one resampling.

    Args:
        keys: Key of the image, then keys of maps on its grid, such as its label; the view replaces each.
        view_shape: Spatial shape of the view; beyond the image it is zero.
        rotation_degrees: Largest angle to either side: one number, in 3D for every axis, or one number for each of
            array axes 0, 1 and 2.
        scale_range: Least and greatest enlargement, drawn on a logarithmic scale.
        shift_mm: Largest shift of the view's centre along each axis.
        elastic_mm: Standard deviation of the displacement at the control points; 0 for affine views.
        nearest_keys: Keys of maps that hold classes; they are sampled at the nearest voxel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        view_shape: Sequence[int],
        rotation_degrees: float | Sequence[float] = 15.0,
        scale_range: Sequence[float] = (0.85, 1.18),
        shift_mm: float = 10.0,
        elastic_mm: float = 2.0,
        nearest_keys: Sequence[str] = (),
    ) -> None:
        super().__init__(keys)
        self.ranges = ViewRanges(tuple(view_shape), rotation_degrees, scale_range, elastic_mm=elastic_mm)
        self.shift_mm = shift_mm
        self.nearest_keys = tuple(nearest_keys)

    def randomize(
        self,
        image: MetaTensor,
        around: Sequence[float] | None = None,
        axes: Float[Tensor, "d d"] | None = None,
    ) -> View:
        """Sample the geometry of the view.

        Args:
            image: Image to view, (C, *spatial).
            around: Voxel near which the centre of the view lies; anywhere in the image when None.
            axes: Directions of the view's axes before it turns, see :func:`medpixcl.views.affine_view`.
        """
        shape, dims = np.array(image.shape[1:]), image.ndim - 1
        spacing = np.array(working_spacing(image))
        half = np.minimum(self.ranges.shape, shape) / 2
        anywhere = half - 0.5 + self.R.uniform(size=dims) * (shape - 2 * half)
        centre = anywhere if around is None else np.array(around)
        centre = centre + self.R.uniform(-1, 1, size=dims) * self.shift_mm / spacing
        return self.ranges.sample(self.R, centre, spacing, axes)

    def shown(self, data: Mapping[Hashable, Any], view: View) -> dict[Hashable, Any]:
        """Return the item with every key resampled to the view."""
        item = dict(data)
        displacement = None if view.displacement is None else view.displacement[None]
        matrix = view.matrix[None].to(item[self.keys[0]].device)
        positions = view_positions(matrix, view.shape, displacement)
        for key in self.keys:
            mode = "nearest" if key in self.nearest_keys else "bilinear"
            values = resample(item[key].as_tensor()[None], positions, mode=mode)[0]
            item[key] = MetaTensor(values, meta=dict(item[key].meta))
        return item

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with a view in place of the image and its maps."""
        return self.shown(data, self.randomize(data[self.keys[0]]))
