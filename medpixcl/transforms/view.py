"""One random view of an image and of what lies on its grid, in one resampling."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from medpixcl.coordinates import working_spacing
from medpixcl.views import View, affine_view, resample, view_positions

CONTROL_POINTS = 5  # per axis, of the elastic field


class RandViewd(MapTransform, Randomizable):
    """A random crop, turn, scale and bend of an image, in one resampling.

    Args:
        keys: Image first, then maps on its grid, such as its label; each is replaced by the view of it.
        view_shape: Spatial shape of the view; where it is larger than the image, there is zero around it.
        rotation_degrees: The view turns by an angle from minus to plus this; in 3D about every axis, or three numbers,
            about array axes 0, 1 and 2.
        scale_range: Enlargement, drawn on a logarithmic scale.
        shift_mm: The view's centre moves by up to this along each axis.
        elastic_mm: Standard deviation of the displacement at control points; 0 for affine views.
        nearest_keys: Those of ``keys`` that hold classes: sampled at the nearest voxel.
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
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range must be two positive ascending numbers, found {list(scale_range)}")
        given, angles = np.size(rotation_degrees), 1 if len(view_shape) == 2 else 3
        if given not in (1, angles):
            raise ValueError(
                f"rotation_degrees has {given} angles; expected one number, or {angles}, one for each axis"
            )
        self.rotation_degrees = np.broadcast_to(rotation_degrees, angles)
        self.view_shape, self.scale_range = tuple(view_shape), tuple(scale_range)
        self.shift_mm, self.elastic_mm = shift_mm, elastic_mm
        self.nearest_keys = tuple(nearest_keys)

    def randomize(
        self,
        image: MetaTensor,
        around: Sequence[float] | None = None,
        axes: Float[Tensor, "d d"] | None = None,
    ) -> View:
        """Sample the geometry of the view.

        Args:
            image: The image.
            around: Voxel near which the centre lies; anywhere in the image when None.
            axes: See :func:`medpixcl.views.affine_view`.
        """
        shape, dims = np.array(image.shape[1:]), image.ndim - 1
        spacing = np.array(working_spacing(image))
        half = np.minimum(self.view_shape, shape) / 2
        anywhere = half - 0.5 + self.R.uniform(size=dims) * (shape - 2 * half)
        centre = anywhere if around is None else np.array(around)
        centre = centre + self.R.uniform(-1, 1, size=dims) * self.shift_mm / spacing
        angles = self.R.uniform(-self.rotation_degrees, self.rotation_degrees)
        low, high = np.log(self.scale_range)
        view = affine_view(
            shape=self.view_shape,
            centre=centre.tolist(),
            spacing_mm=spacing.tolist(),
            rotation_degrees=angles.tolist(),
            scale=float(np.exp(self.R.uniform(low, high))),
            axes=axes,
        )
        if self.elastic_mm == 0:
            return view
        field = self.R.normal(size=(dims, *[CONTROL_POINTS] * dims)) * self.elastic_mm
        field /= spacing.reshape(-1, *[1] * dims)
        return View(matrix=view.matrix, shape=view.shape, displacement=torch.from_numpy(field).float())

    def shown(self, data: Mapping[Hashable, Any], view: View) -> dict[Hashable, Any]:
        """The item with everything as the view shows it."""
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
