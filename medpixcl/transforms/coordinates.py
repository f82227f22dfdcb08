"""The open path: a coordinate map that stock MONAI spatial transforms carry along with the image."""

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medpixcl.coordinates import spatial_affine, voxel_positions
from medpixcl.views import coordinate_map


class CoordinateMapd(MapTransform):
    """Add the coordinate map of an image: mm along every axis and validity, as D+1 channels beside the image.

    Any MONAI spatial transform applied to image and map together (linear interpolation for the map, zero padding)
    then keeps the two in step; padding ends up with a validity below one.

    Args:
        keys: Images.
        prefix: The map of ``image`` is stored under ``prefix + "image"``.
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, prefix: str = "coords_", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.prefix = prefix

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the item with the maps added."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            shape = image.shape[1:]
            affine = spatial_affine(torch.as_tensor(image.affine), len(shape)).float()
            positions = voxel_positions(shape)[None]
            item[f"{self.prefix}{key}"] = MetaTensor(
                coordinate_map(positions, affine[None], shape)[0], affine=image.affine, meta=dict(image.meta)
            )
        return item
