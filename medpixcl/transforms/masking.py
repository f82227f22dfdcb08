"""Hide parts of an image, for a network that learns to fill them in."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandCoarseDropout, Randomizable
from monai.utils import MAX_SEED


class RandMaskedCellsd(MapTransform, Randomizable):
    """Set two thirds of the cells of each image to 0, at random places that may overlap, and keep the whole image.

    ``{key}_target`` is the whole image. ``{key}_opacity`` is 1, shape (1,): a masked image is mixed with nothing, so
    that it can stand where :class:`medpixcl.transforms.RandCrossDomainMixUpd` does.

    The baseline after masked autoencoders (He et al., arXiv 2111.06377), for networks of convolutions.

    Args:
        keys: Keys of images (C, *spatial).
        patch_shape: Size of the images in pixels.
        cells: Number of cells along each axis.
    """

    def __init__(self, keys: KeysCollection, patch_shape: Sequence[int], cells: int) -> None:
        super().__init__(keys)
        holes, cell = cells ** len(patch_shape) * 2 // 3, [size // cells for size in patch_shape]
        self.dropout = RandCoarseDropout(holes=holes, spatial_size=cell, fill_value=0.0, prob=1.0)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandMaskedCellsd":
        """Seed the places of the cells."""
        super().set_random_state(seed, state)
        self.dropout.set_random_state(int(self.R.randint(MAX_SEED, dtype="uint32")))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images masked, and their targets beside them."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[f"{key}_target"], item[f"{key}_opacity"] = item[key].clone(), torch.ones(1)
            item[key] = self.dropout(item[key])
        return item
