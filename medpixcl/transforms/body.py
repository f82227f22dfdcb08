"""Exogenous channels made of the image alone: how deep in the body a voxel lies, and where in the body's box."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.data.body import SKIN_HU, body_coordinates, body_distance, body_mask


class _Body(MapTransform):
    """Adds a channel that is made of the body mask of each image, see :func:`medpixcl.data.body.body_mask`."""

    prefix: str

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | None = SKIN_HU,
        fill_holes: bool = True,
        opening_mm: float = 0.0,
    ) -> None:
        super().__init__(keys)
        self.threshold, self.fill_holes, self.opening_mm = threshold, fill_holes, opening_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the channels added."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            affine = spatial_affine(torch.as_tensor(image.affine), image.ndim - 1)
            try:
                body = body_mask(
                    image.as_tensor()[0],
                    affine,
                    threshold=self.threshold,
                    fill_holes=self.fill_holes,
                    opening_mm=self.opening_mm,
                )
            except ValueError as error:
                raise ValueError(f"{image.meta.get('filename_or_obj', 'the image')}: {error}") from error
            item[f"{self.prefix}{key}"] = MetaTensor(self._channel(body, affine), affine=image.affine)
        return item

    def _channel(self, body: Tensor, affine: Tensor) -> Tensor:
        raise NotImplementedError


class BodyDistanceMapd(_Body):
    """Add the distance in mm to the surface of the body; for ``image`` the exogenous channel ``body_distance_image``.

    Put it before the intensities are scaled, so that the threshold is in HU, and after the working spacing, which is
    faster.

    Args:
        keys: Images of one channel.
        signed: Give voxels outside the body minus the distance to it; otherwise the channel is missing there
            (validity 0).
        **body: Options of the body mask, see :class:`BodyCoordinatesd`.
    """

    prefix = "body_distance_"

    def __init__(self, keys: KeysCollection, signed: bool = False, **body: Any) -> None:
        super().__init__(keys, **body)
        self.signed = signed

    def _channel(self, body: Tensor, affine: Tensor) -> Tensor:
        distance = body_distance(body, spacing_of(affine).tolist(), signed=self.signed)
        return torch.stack([distance, torch.ones_like(distance) if self.signed else body.float()])


class BodyCoordinatesd(_Body):
    """Add the position of every voxel in the body's box (0 to 1 from right to left, back to front, feet to head).

    For ``image`` the exogenous channel is ``body_coordinates_image``. It has three values per voxel, which could also
    pair voxels of different patients, and is missing outside the body.

    Args:
        keys: Images of one channel.
        threshold: Intensity above which a voxel is body, in HU for CT; None for Otsu's threshold (MR, radiographs).
        fill_holes: Count lungs and bowel as body.
        opening_mm: Remove parts thinner than twice this length, such as the table.
    """

    prefix = "body_coordinates_"

    def _channel(self, body: Tensor, affine: Tensor) -> Tensor:
        coordinates = body_coordinates(body, affine)
        return torch.cat([coordinates * body, body[None].float()])
