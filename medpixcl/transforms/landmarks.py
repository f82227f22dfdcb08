"""One random view of an image together with its landmarks: the image is resampled, the points are mapped."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from medpixcl._typing import PointsMM
from medpixcl.coordinates import (
    apply_affine,
    inside,
    mm_to_voxel,
    sample_at,
    working_affine,
)
from medpixcl.landmarks.geometry import fit_similarity, mean_shape
from medpixcl.transforms.view import RandViewd
from medpixcl.views import View, smooth_field, upright_axes

FIXED_POINT_STEPS = 20
"""Steps of the search of a point in a deformed view; each multiplies the error by the slope of the field."""

LARGEST_MISS = 0.1
"""Distance in image voxels beyond which such a search has not converged."""


def locate(view: View, points: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Find the view voxels that show given image voxels, also in a deformed view.

    A deformed view shows at its pixel ``v`` the image at ``matrix v + displacement(v)``, interpolated linearly between
    its pixels as in the resampled image. ``v <- matrix^-1 (p - displacement(v))`` finds the pixel; it converges for a
    displacement that changes by less than a pixel per pixel. Where it does not, the view is folded and shows a point
    twice or not at all.

    Args:
        view: View to search.
        points: Image voxels in array order, shape (K, D).

    Returns:
        View voxels, shape (K, D); NaN for NaN and for what is not found within a tenth of an image voxel.
    """
    if view.displacement is None:
        return view.locate(points)
    field = smooth_field(view.displacement[None].to(points), view.shape)
    back = torch.linalg.inv(view.matrix).to(points)
    found = apply_affine(back, points)
    for _ in range(FIXED_POINT_STEPS):
        found = apply_affine(back, points - sample_at(field, found[None])[0])
    missed = apply_affine(view.matrix.to(points), found) + sample_at(field, found[None])[0] - points
    return torch.where((missed.abs() < LARGEST_MISS).all(dim=1, keepdim=True), found, torch.nan)


class RandLandmarkViewd(RandViewd):
    """A random view of an image (:class:`medpixcl.transforms.view.RandViewd`), and its landmarks in the view's voxels.

    The item holds ``points``, landmarks in mm (K, D) in the frame of the image's affine, and their ``weights`` (K,).
    They become voxels of the view, float32, with weight 0 where a landmark is missing or outside the view.

    Args:
        keys: Key of the image.
        view_shape: Spatial shape of the view; beyond the image it is zero.
        centred: Put the centre of the view on one of the known landmarks before it is shifted.
        shape_mm: Landmarks of a typical image, (K, D) in mm (:func:`mean_landmarks`). If given, a view first turns
            until the image's landmarks stand as these do, and the random angle is counted from there.
        **view: Further options of :class:`medpixcl.transforms.RandViewd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        view_shape: Sequence[int],
        centred: bool = False,
        shape_mm: Sequence[Sequence[float]] | None = None,
        **view: Any,
    ) -> None:
        super().__init__(keys, view_shape, **view)
        self.shape = None if shape_mm is None else torch.tensor(shape_mm, dtype=torch.float64)
        self.centred = centred

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the view in place of the image."""
        image = data[self.keys[0]]
        affine = working_affine(image)
        voxels = _in_voxels(data["points"], affine)
        known = ~voxels.isnan().any(dim=1) & (data["weights"] > 0).to(voxels.device)
        on_one = self.centred and bool(known.any())
        around = voxels[known][self.R.randint(int(known.sum()))].tolist() if on_one else None
        axes = None if self.shape is None else _upright(self.shape, data["points"].double(), known, affine)
        view = self.randomize(image, around, axes)
        points = locate(view, voxels)
        item = self.shown(data, view)
        item["points"] = points.float()
        item["weights"] = item["weights"].float() * inside(points, view.shape)
        return item


def _upright(shape: Tensor, mm: Tensor, known: Tensor, affine: Tensor) -> Tensor | None:
    """Axes of a view in which the known landmarks stand as the shape; None where it has none of them."""
    both = known & ~shape.isnan().any(dim=1)
    if not both.any():
        return None
    matrix, _ = fit_similarity(shape[both], mm[both], torch.ones_like(mm[both][:, 0]))
    return upright_axes(affine, matrix)


def mean_landmarks(
    items: Sequence[Mapping[Hashable, Any]],
    prepare: Callable[[Any], Mapping[Hashable, Any]],
) -> list[list[float]]:
    """Compute the mean shape of annotated images, the ``shape_mm`` of :class:`RandLandmarkViewd`.

    Args:
        items: Items of a datalist.
        prepare: Function that loads an item with its landmarks in mm.

    Returns:
        K landmarks in mm, in the frame of the first item; NaN for one that no item has.
    """
    return mean_shape([prepare(item)["points"].double() for item in items]).tolist()


class LandmarkVoxelsd(MapTransform):
    """Turn the landmarks of an item, ``points`` in mm, into voxels of its image, without making a view.

    Args:
        keys: Key of the image.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the landmarks moved."""
        item = dict(data)
        image = item[self.keys[0]]
        affine = working_affine(image)
        item["points"] = _in_voxels(item["points"], affine).float()
        return item


def _in_voxels(points: PointsMM, affine: Tensor) -> Float[Tensor, "k d"]:
    return mm_to_voxel(points.double(), affine)
