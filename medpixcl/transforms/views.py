"""Two views of one image in one step: parameters are sampled, one grid per view is built, every key moves by it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ImageMetaKey
from torch import Tensor

from medpixcl.coordinates import spatial_affine, working_spacing
from medpixcl.transforms.validity import unweigh, weigh
from medpixcl.views import View, ViewRanges, coordinate_map, reach, resample, view_positions


class RandPixelViewsd(MapTransform, Randomizable):
    """An anchor view (affine) and a query view (affine, elastic on demand) of the same image, with exact positions.

    For each key ``k`` the item gets ``k_anchor`` and ``k_query``, and for the first key also
    ``coords_k_anchor`` and ``coords_k_query``: position in mm along every axis and validity, D+1 channels.
    The affine of an anchor view is exact; that of a deformed query view leaves out the deformation, its coordinate map
    is exact. Both views are crops that overlap. All sizes in mm are physical, whatever the spacing.

    Args:
        keys: Key of the image, then keys of maps that move with it (entropy, classes, depth or another exogenous
            channel).
        view_shape: Spatial shape of both views.
        nearest_keys: Keys of maps that hold classes; they are sampled at the nearest voxel.
        exogenous_keys: Keys of channels whose last channel is their validity: they are interpolated between known
            values only, with validity 0 outside the image. Classes with a validity belong to ``nearest_keys`` instead.
        pixel_mm: Size of a view pixel before scaling, array order; None takes the spacing of the image.
        rotation_degrees: Largest angle to either side by which each view turns, in 3D about every axis.
        scale_range: Least and greatest enlargement of each view, drawn on a logarithmic scale.
        flip_probability: Probability of mirroring a view: one number, or one for each axis.
        shift: Largest distance between the two centres along each axis, as a share of the view's extent.
        elastic_mm: Standard deviation of the query view's displacement at the control points; 0 for affine views.
    """

    def __init__(
        self,
        keys: KeysCollection,
        view_shape: Sequence[int],
        nearest_keys: Sequence[str] = (),
        exogenous_keys: Sequence[str] = (),
        pixel_mm: Sequence[float] | None = None,
        rotation_degrees: float = 20.0,
        scale_range: Sequence[float] = (0.75, 1.33),
        flip_probability: Sequence[float] | float = 0.0,
        shift: float = 0.25,
        elastic_mm: float = 0.0,
    ) -> None:
        super().__init__(keys)
        self.nearest_keys, self.exogenous_keys = tuple(nearest_keys), tuple(exogenous_keys)
        self.anchor = ViewRanges(tuple(view_shape), rotation_degrees, scale_range, flip_probability, pixel_mm=pixel_mm)
        self.query = replace(self.anchor, elastic_mm=elastic_mm)
        self.shift = shift

    def randomize(self, image: MetaTensor) -> tuple[View, View]:
        """Sample the geometry of the anchor view and of the query view."""
        shape = np.array(image.shape[1:])
        spacing = np.array(working_spacing(image))
        pixel = spacing if self.anchor.pixel_mm is None else self.anchor.pixel_mm
        extent = np.array(self.anchor.shape) * pixel / spacing
        centre = self._inside(self.R.uniform(size=len(shape)) * (shape - 1), shape, extent)
        moved = centre + self.R.uniform(-1, 1, size=len(shape)) * self.shift * extent
        anchor = self.anchor.sample(self.R, centre, spacing)
        query = self.query.sample(self.R, self._inside(moved, shape, extent), spacing)
        return anchor, query

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the views in place of the images."""
        item = dict(data)
        image = item[self.keys[0]]
        views = self.randomize(image)
        # Only the part that the views show is weighted, converted and joined.
        part = reach(views, image.shape[1:])
        start = [one.start for one in part]
        anchor, query = (view.of_part(start) for view in views)
        parameters = {"matrix_anchor": anchor.matrix[None], "matrix_query": query.matrix[None]}
        if query.displacement is not None:
            parameters["displacement_query"] = query.displacement[None]
        images = {key: item[key].as_tensor()[(None, slice(None), *part)] for key in self.key_iterator(item)}
        shown, affines = apply_views(
            images,
            _affine_of_part(torch.as_tensor(image.affine), start)[None],
            parameters,
            view_shape=self.anchor.shape,
            nearest_keys=self.nearest_keys,
            exogenous_keys=self.exogenous_keys,
        )
        source = {key: image.meta[key] for key in (ImageMetaKey.FILENAME_OR_OBJ,) if key in image.meta}
        for key in images:
            del item[key]
        for name, value in shown.items():
            item[name] = MetaTensor(value[0], affine=affines[name.rsplit("_", 1)[1]][0], meta=dict(source))
        return item

    def _inside(self, centre: np.ndarray, shape: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """Centre moved so that the unturned view leaves the image as little as its size allows."""
        half = np.minimum(extent, shape) / 2
        return np.clip(centre, half - 0.5, shape - 0.5 - half)


def apply_views(
    images: Mapping[str, Tensor],
    affine: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    view_shape: Sequence[int],
    nearest_keys: Sequence[str] = (),
    exogenous_keys: Sequence[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Resample a batch of images of one shape to their views, on their device.

    Args:
        images: The image first, then its maps; each of shape (B, C, *spatial).
        affine: Affines of the images, voxel -> mm, shape (B, 4, 4) or (B, D+1, D+1).
        parameters: ``matrix_anchor`` and ``matrix_query`` (B, D+1, D+1) and, for a deformed query view,
            ``displacement_query``.
        view_shape: Spatial shape of the views.
        nearest_keys: Keys of maps that are sampled at the nearest voxel.
        exogenous_keys: Keys of channels whose last channel is their validity; they are interpolated between known
            values only.

    Returns:
        ``k_anchor``, ``k_query`` for each key and ``coords_k_anchor``, ``coords_k_query`` for the first, and the
        affine of the ``anchor`` and the ``query`` views, shape (B, 4, 4) or (B, D+1, D+1).
    """
    first = next(iter(images))
    image = images[first]
    dims = image.ndim - 2
    spatial = torch.stack([spatial_affine(matrix, dims) for matrix in affine]).to(image.device)
    linear = {key: images[key].to(image.dtype) for key in images if key not in nearest_keys}
    weighed = linear.keys() & set(exogenous_keys)
    linear.update({key: weigh(linear[key]) for key in weighed})
    classes = {key: images[key].to(image.dtype) for key in nearest_keys}
    # All interpolated keys are channels of one image for the one resampling of a view; a single key is not copied.
    channels = [values.shape[1] for values in linear.values()]
    joined = torch.cat(list(linear.values()), dim=1) if len(linear) > 1 else next(iter(linear.values()))
    views: dict[str, Tensor] = {}
    affines: dict[str, Tensor] = {}
    for side in ("anchor", "query"):
        matrix = parameters[f"matrix_{side}"].to(image.device)
        positions = view_positions(matrix, view_shape, parameters.get(f"displacement_{side}"))
        for key, part in zip(linear, resample(joined, positions).split(channels, dim=1), strict=True):
            views[f"{key}_{side}"] = unweigh(part) if key in weighed else part
        for key, values in classes.items():
            views[f"{key}_{side}"] = resample(values, positions, mode="nearest").to(images[key].dtype)
        views[f"coords_{first}_{side}"] = coordinate_map(positions, spatial.float(), image.shape[2:])
        affines[side] = _embed(spatial.double() @ matrix.double(), affine.shape[-1])
    return views, affines


def _affine_of_part(affine: Tensor, start: Sequence[int]) -> Tensor:
    """The affine (voxel -> mm) of the part of an image that begins at the voxel ``start``."""
    moved = affine.clone()
    moved[:, -1] += affine[:, : len(start)] @ torch.tensor(start).to(affine)
    return moved


def _embed(matrix: Tensor, size: int) -> Tensor:
    """The homogeneous matrices (B, D+1, D+1) as (B, size, size), with the added axes unchanged."""
    dims = matrix.shape[-1] - 1
    whole = torch.eye(size, dtype=matrix.dtype, device=matrix.device).repeat(matrix.shape[0], 1, 1)
    keep = [*range(dims), size - 1]
    whole[:, torch.tensor(keep)[:, None], torch.tensor(keep)] = matrix
    return whole
