"""Informativeness of an image as further keys of its item."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.informativeness import classify_informativeness, local_entropy


class LocalEntropyd(MapTransform):
    """Add the local entropy of an image and the class of every pixel (0 low, 1 medium, 2 high informativeness).

    The maps of ``image`` are ``entropy_image`` and ``class_image``. They depend on the raw image only: put this
    transform before the random ones, where the dataset caches its result.

    Args:
        keys: Images of one channel.
        radius_mm: Radius of the window in mm; the footprint follows the spacing.
        footprint: ``ball`` or ``box``.
        bins: Number of grey levels between the least and the greatest value.
        cuts: Bounds between the classes in bits; None for quantiles.
        quantiles: Bounds between the classes as quantiles of the foreground; used when ``cuts`` is None.
    """

    def __init__(
        self,
        keys: KeysCollection,
        radius_mm: float = 4.0,
        footprint: Literal["ball", "box"] = "ball",
        bins: int = 32,
        cuts: Sequence[float] | None = None,
        quantiles: Sequence[float] = (1 / 3, 2 / 3),
    ) -> None:
        super().__init__(keys)
        self.radius_mm, self.footprint, self.bins = radius_mm, footprint, bins
        self.cuts, self.quantiles = cuts, quantiles if cuts is None else None

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the item with the maps added."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            spacing = spacing_of(spatial_affine(torch.as_tensor(image.affine), image.ndim - 1)).tolist()
            entropy = local_entropy(
                image.as_tensor()[None],
                radius=self.radius_mm,
                footprint=self.footprint,
                spacing=spacing,
                bins=self.bins,
            )
            classes = classify_informativeness(entropy, cuts=self.cuts, quantiles=self.quantiles)
            item[f"entropy_{key}"] = MetaTensor(entropy[0], affine=image.affine)
            item[f"class_{key}"] = MetaTensor(classes[0], affine=image.affine)
        return item
