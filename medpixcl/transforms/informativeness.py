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

    It depends on the raw image only: put it before the random transforms, where the dataset caches it.

    Args:
        keys: Images of one channel.
        radius_mm: Radius of the window in mm; the footprint follows the spacing.
        footprint: ``ball`` or ``box``.
        bins: Grey levels between the least and the greatest value.
        cuts: Bounds between the classes in bits; None for quantiles.
        quantiles: Bounds between the classes as quantiles of the foreground; used when ``cuts`` is None.
        entropy_prefix: The map of ``image`` is stored under ``entropy_prefix + "image"``.
        class_prefix: The classes of ``image`` are stored under ``class_prefix + "image"``.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        radius_mm: float = 4.0,
        footprint: Literal["ball", "box"] = "ball",
        bins: int = 32,
        cuts: Sequence[float] | None = None,
        quantiles: Sequence[float] = (1 / 3, 2 / 3),
        entropy_prefix: str = "entropy_",
        class_prefix: str = "class_",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.radius_mm, self.footprint, self.bins = radius_mm, footprint, bins
        self.cuts, self.quantiles = cuts, quantiles if cuts is None else None
        self.entropy_prefix, self.class_prefix = entropy_prefix, class_prefix

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
            item[f"{self.entropy_prefix}{key}"] = MetaTensor(entropy[0], affine=image.affine)
            item[f"{self.class_prefix}{key}"] = MetaTensor(classes[0], affine=image.affine)
        return item
