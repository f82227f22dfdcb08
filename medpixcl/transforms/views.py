"""Two views of one image in one step: parameters are sampled, one grid per view is built, every key moves by it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ImageMetaKey
from torch import Tensor

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.transforms.validity import unweigh, weigh
from medpixcl.views import View, affine_view, coordinate_map, resample, view_positions

FILE = ImageMetaKey.FILENAME_OR_OBJ
CONTROL_POINTS = 5  # per axis, of the elastic field; fewer bend smoothly, more bend in detail


class RandPixelViewsd(MapTransform, Randomizable):
    """An anchor view (affine) and a query view (affine, elastic on demand) of the same image, with exact positions.

    For each key ``k`` the item gets ``k_anchor`` and ``k_query``, and for the first key also
    ``coords_k_anchor`` and ``coords_k_query``: position in mm along every axis and validity, D+1 channels.
    The affine of an anchor view is exact; that of a deformed query view leaves out the deformation, its coordinate map
    is exact. Both views are crops that overlap. All sizes in mm are physical, whatever the spacing.

    Args:
        keys: Image first, then maps that move with it (entropy, classes, depth or any other exogenous channel).
        view_shape: Spatial shape of both views.
        nearest_keys: Those of ``keys`` that hold classes: sampled at the nearest voxel.
        exogenous_keys: Those of ``keys`` whose last channel is their validity: interpolated between known values only,
            with validity 0 outside the image. Classes with a validity belong to ``nearest_keys`` instead.
        pixel_mm: Size of a view pixel before scaling; the image's own when None.
        rotation_degrees: Each view turns by an angle from minus to plus this (about every axis in 3D).
        scale_range: Each view is enlarged by a factor from this range, drawn on a logarithmic scale.
        flip_probability: Chance that a view is mirrored, per axis.
        shift: Distance of the two centres along each axis, as a share of the view's extent, at most.
        elastic_mm: Standard deviation of the query view's displacement at its control points; 0 for affine views.
        defer: Sample only and keep the image; :func:`apply_views` then makes the views of a whole batch on a device.
        allow_missing_keys: As in MONAI.
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
        defer: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.view_shape = tuple(view_shape)
        self.nearest_keys, self.exogenous_keys = tuple(nearest_keys), tuple(exogenous_keys)
        self.pixel_mm, self.rotation_degrees, self.scale_range = pixel_mm, rotation_degrees, tuple(scale_range)
        dims = len(self.view_shape)
        self.flip_probability = np.broadcast_to(np.asarray(flip_probability, dtype=float), dims).tolist()
        self.shift, self.elastic_mm, self.defer = shift, elastic_mm, defer
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range must be two positive ascending numbers, found {list(scale_range)}")

    def randomize(self, image: MetaTensor) -> tuple[View, View]:
        """Sample the geometry of the anchor view and of the query view."""
        shape = np.array(image.shape[1:])
        spacing = spacing_of(spatial_affine(torch.as_tensor(image.affine), len(shape))).numpy()
        extent = np.array(self.view_shape) * (spacing if self.pixel_mm is None else self.pixel_mm) / spacing
        centre = self._inside(self.R.uniform(size=len(shape)) * (shape - 1), shape, extent)
        moved = centre + self.R.uniform(-1, 1, size=len(shape)) * self.shift * extent
        anchor = self._sample(centre, spacing)
        query = self._sample(self._inside(moved, shape, extent), spacing)
        if self.elastic_mm > 0:
            field = self.R.normal(size=(len(shape), *[CONTROL_POINTS] * len(shape))) * self.elastic_mm
            field /= spacing.reshape(-1, *[1] * len(shape))
            query = View(matrix=query.matrix, shape=query.shape, displacement=torch.from_numpy(field).float())
        return anchor, query

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the views, or with their parameters when deferred."""
        item = dict(data)
        anchor, query = self.randomize(item[self.keys[0]])
        parameters = {"matrix_anchor": anchor.matrix, "matrix_query": query.matrix}
        if query.displacement is not None:
            parameters["displacement_query"] = query.displacement
        if self.defer:
            item.update(parameters)
            return item
        images = {key: item[key].as_tensor()[None] for key in self.key_iterator(item)}
        affine = torch.as_tensor(item[self.keys[0]].affine)
        batch = {name: value[None] for name, value in parameters.items()}
        views, affines = apply_views(
            images,
            affine[None],
            batch,
            view_shape=self.view_shape,
            nearest_keys=self.nearest_keys,
            exogenous_keys=self.exogenous_keys,
        )
        source = {FILE: item[self.keys[0]].meta[FILE]} if FILE in item[self.keys[0]].meta else {}
        for key in images:
            del item[key]
        for name, value in views.items():
            item[name] = MetaTensor(value[0], affine=affines[name.rsplit("_", 1)[1]][0], meta=dict(source))
        return item

    def _inside(self, centre: np.ndarray, shape: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """Centre moved so that the unturned view leaves the image as little as its size allows."""
        half = np.minimum(extent, shape) / 2
        return np.clip(centre, half - 0.5, shape - 0.5 - half)

    def _sample(self, centre: np.ndarray, spacing: np.ndarray) -> View:
        dims = len(centre)
        angles = self.R.uniform(-self.rotation_degrees, self.rotation_degrees, size=1 if dims == 2 else 3)
        low, high = np.log(self.scale_range)
        return affine_view(
            shape=self.view_shape,
            centre=centre.tolist(),
            spacing_mm=spacing.tolist(),
            pixel_mm=self.pixel_mm,
            rotation_degrees=angles.tolist(),
            scale=float(np.exp(self.R.uniform(low, high))),
            flip=(self.R.uniform(size=dims) < self.flip_probability).tolist(),
        )


def apply_views(
    images: Mapping[str, Tensor],
    affine: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    view_shape: Sequence[int],
    nearest_keys: Sequence[str] = (),
    exogenous_keys: Sequence[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Views of a batch of images of one shape, on their device.

    Args:
        images: Image first, then maps; each of shape (B, C, *spatial).
        affine: Of the images, voxel -> mm, shape (B, 4, 4) or (B, D+1, D+1).
        parameters: ``matrix_anchor``, ``matrix_query`` (B, D+1, D+1) and, if deformed, ``displacement_query``.
        view_shape: Spatial shape of the views.
        nearest_keys: Keys sampled at the nearest voxel.
        exogenous_keys: Keys whose last channel is their validity, interpolated between known values only.

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
    views: dict[str, Tensor] = {}
    affines: dict[str, Tensor] = {}
    for side in ("anchor", "query"):
        matrix = parameters[f"matrix_{side}"].to(image.device)
        positions = view_positions(matrix, view_shape, parameters.get(f"displacement_{side}"))
        # All interpolated keys are channels of one image for the one resampling.
        channels = [linear[key].shape[1] for key in linear]
        joined = resample(torch.cat(list(linear.values()), dim=1), positions)
        for key, part in zip(linear, joined.split(channels, dim=1), strict=True):
            views[f"{key}_{side}"] = unweigh(part) if key in weighed else part
        for key in nearest_keys:
            part = resample(images[key].to(image.dtype), positions, mode="nearest")
            views[f"{key}_{side}"] = part.to(images[key].dtype)
        views[f"coords_{first}_{side}"] = coordinate_map(positions, spatial.float(), image.shape[2:])
        affines[side] = _embed(spatial.double() @ matrix.double(), affine.shape[-1])
    return views, affines


def _embed(matrix: Tensor, size: int) -> Tensor:
    """The homogeneous matrices (B, D+1, D+1) as (B, size, size), the added axes left as they are."""
    dims = matrix.shape[-1] - 1
    whole = torch.eye(size, dtype=matrix.dtype, device=matrix.device).repeat(matrix.shape[0], 1, 1)
    keep = [*range(dims), size - 1]
    whole[:, torch.tensor(keep)[:, None], torch.tensor(keep)] = matrix
    return whole
