"""One random view of an image together with its landmarks: the image is resampled, the points are mapped."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from medpixcl._typing import PointsMM
from medpixcl.coordinates import (
    apply_affine,
    inside,
    mm_to_voxel,
    sample_at,
    spacing_of,
    spatial_affine,
    working_affine,
)
from medpixcl.transforms.intensity import IntensityRanges
from medpixcl.views import View, affine_view, resample, smooth_field, view_positions

CONTROL_POINTS = 5  # per axis, of the elastic field
TURNS = 20  # of the fixed-point search of a point in a deformed view; the error falls by the field's slope at each

FOUND = 0.1  # image voxels; farther from its point, a search has not converged


def locate(view: View, points: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Where image voxels lie in a view, be it deformed.

    A deformed view shows at its pixel ``v`` the image at ``matrix v + displacement(v)``, interpolated linearly between
    its pixels as in the resampled image. ``v <- matrix^-1 (p - displacement(v))`` finds the pixel; it converges for a
    displacement that changes by less than a pixel per pixel. Where it does not, the view is folded and shows a point
    twice or not at all.

    Args:
        view: The view.
        points: Image voxels in array order, shape (K, D).

    Returns:
        View voxels, shape (K, D); NaN for NaN and for what is not found within a tenth of an image voxel.
    """
    if view.displacement is None:
        return view.locate(points)
    field = smooth_field(view.displacement[None].to(points), view.shape)
    back = torch.linalg.inv(view.matrix).to(points)
    found = apply_affine(back, points)
    for _ in range(TURNS):
        found = apply_affine(back, points - sample_at(field, found[None])[0])
    missed = apply_affine(view.matrix.to(points), found) + sample_at(field, found[None])[0] - points
    return torch.where((missed.abs() < FOUND).all(dim=1, keepdim=True), found, torch.nan)


class RandLandmarkViewd(MapTransform, Randomizable):
    """A random crop, turn, scale and bend of an image, in one resampling, and its landmarks in the view's voxels.

    The item holds landmarks in mm (the frame of the image's affine) and their weights. It gets them back as voxels of
    the view, float32, with weight 0 where they are missing or outside the view.

    Args:
        keys: The image.
        view_shape: Spatial shape of the view; where it is larger than the image, there is zero around it.
        rotation_degrees: The view turns by an angle from minus to plus this (about every axis in 3D).
        scale_range: Enlargement, drawn on a logarithmic scale.
        shift_mm: The view's centre moves by up to this along each axis.
        elastic_mm: Standard deviation of the displacement at control points; 0 for affine views.
        points_key: Landmarks in mm, shape (K, D).
        weights_key: Their weights, shape (K,).
    """

    def __init__(
        self,
        keys: KeysCollection,
        view_shape: Sequence[int],
        rotation_degrees: float = 15.0,
        scale_range: Sequence[float] = (0.85, 1.18),
        shift_mm: float = 10.0,
        elastic_mm: float = 2.0,
        points_key: str = "points",
        weights_key: str = "weights",
    ) -> None:
        super().__init__(keys)
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range must be two positive ascending numbers, found {list(scale_range)}")
        self.view_shape, self.scale_range = tuple(view_shape), tuple(scale_range)
        self.rotation_degrees, self.shift_mm, self.elastic_mm = rotation_degrees, shift_mm, elastic_mm
        self.points_key, self.weights_key = points_key, weights_key

    def randomize(self, image: MetaTensor) -> View:
        """Sample the geometry of the view."""
        shape, dims = np.array(image.shape[1:]), image.ndim - 1
        spacing = spacing_of(spatial_affine(torch.as_tensor(image.affine), dims)).numpy()
        half = np.minimum(self.view_shape, shape) / 2
        centre = half - 0.5 + self.R.uniform(size=dims) * (shape - 2 * half)
        centre += self.R.uniform(-1, 1, size=dims) * self.shift_mm / spacing
        angles = self.R.uniform(-self.rotation_degrees, self.rotation_degrees, size=1 if dims == 2 else 3)
        low, high = np.log(self.scale_range)
        view = affine_view(
            shape=self.view_shape,
            centre=centre.tolist(),
            spacing_mm=spacing.tolist(),
            rotation_degrees=angles.tolist(),
            scale=float(np.exp(self.R.uniform(low, high))),
        )
        if self.elastic_mm == 0:
            return view
        field = self.R.normal(size=(dims, *[CONTROL_POINTS] * dims)) * self.elastic_mm
        field /= spacing.reshape(-1, *[1] * dims)
        return View(matrix=view.matrix, shape=view.shape, displacement=torch.from_numpy(field).float())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the view in place of the image."""
        item = dict(data)
        image = item[self.keys[0]]
        view = self.randomize(image)
        affine = working_affine(image)
        points = locate(view, _in_voxels(item[self.points_key], affine))
        displacement = None if view.displacement is None else view.displacement[None]
        positions = view_positions(view.matrix[None], view.shape, displacement)
        for key in self.keys:
            item[key] = MetaTensor(resample(item[key].as_tensor()[None], positions)[0], meta=dict(item[key].meta))
        seen = inside(points, view.shape)
        item[self.points_key] = points.float()
        item[self.weights_key] = item[self.weights_key].float() * seen
        return item


class LandmarkVoxelsd(MapTransform):
    """The same without a view: landmarks in mm become voxels of the image as it is.

    Args:
        keys: The image.
        points_key: Landmarks in mm, shape (K, D).
    """

    def __init__(self, keys: KeysCollection, points_key: str = "points") -> None:
        super().__init__(keys)
        self.points_key = points_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the landmarks moved."""
        item = dict(data)
        image = item[self.keys[0]]
        affine = working_affine(image)
        item[self.points_key] = _in_voxels(item[self.points_key], affine).float()
        return item


def _in_voxels(points: PointsMM, affine: Tensor) -> Float[Tensor, "k d"]:
    return mm_to_voxel(points.double(), affine)


class RandIntensityd(MapTransform, Randomizable):
    """Random brightness, contrast, gamma, noise, blur and bias field of whole images.

    Args:
        keys: Images between 0 and 1.
        ranges: See :class:`medpixcl.transforms.intensity.IntensityRanges`.
        probability: Chance that an image is changed at all.
    """

    def __init__(self, keys: KeysCollection, ranges: Mapping[str, Sequence[float]], probability: float = 1.0) -> None:
        super().__init__(keys)
        self.ranges, self.probability = IntensityRanges(**ranges), probability

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images changed."""
        item = dict(data)
        for key in self.key_iterator(item):
            change, changed = self.ranges.sample(self.R), self.R.uniform() < self.probability
            if changed:
                item[key] = MetaTensor(change.apply(item[key].as_tensor()), meta=dict(item[key].meta))
        return item
