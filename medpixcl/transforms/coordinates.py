"""The open path: a coordinate map that stock MONAI spatial transforms carry along with the image."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from medpixcl.coordinates import spatial_affine, voxel_positions
from medpixcl.views import coordinate_map


class CoordinateMapd(MapTransform):
    """Add the coordinate map of ``image`` as ``coords_image``: mm along every axis and validity, D+1 channels.

    Any MONAI spatial transform applied to image and map together, with ``mode="bilinear"`` (in 3D too, or the like)
    and ``padding_mode="zeros"``, then keeps the two in step, and padding ends up with a validity below one.

    The outermost voxels are marked as not valid: many transforms repeat them as padding (every one under
    ``Compose(lazy=True)``, which forgets ``padding_mode``), and a position repeated outside is wrong.

    Args:
        keys: Keys of the images.
    """

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the item with the maps added."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            shape = image.shape[1:]
            affine = spatial_affine(torch.as_tensor(image.affine), len(shape)).float()
            positions = voxel_positions(shape, device=image.device)[None]
            coords = coordinate_map(positions, affine[None], shape)[0]
            coords[-1] *= _without_border(shape).to(coords)
            item[f"coords_{key}"] = MetaTensor(coords, meta=dict(image.meta))
        return item


def _without_border(shape: Sequence[int]) -> Float[Tensor, "*s"]:
    """1 inside, 0 for the outermost voxels of every axis; an axis of one or two voxels has an outside only and counts.

    Example:
        >>> _without_border((3, 1))
        tensor([[0.],
                [1.],
                [0.]])
    """
    inner = torch.ones(tuple(shape))
    for axis, size in enumerate(shape):
        if size > 2:
            inner.index_fill_(axis, torch.tensor([0, size - 1]), 0.0)
    return inner
