"""Pixels drawn in the query view, by informativeness, with their partners in the anchor view."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Randomizable, Transform

from medpixcl.coordinates import spatial_affine
from medpixcl.correspondence.pixels import correspond, draw_pixels, overlap
from medpixcl.informativeness import sampling_weights
from medpixcl.transforms.classes import PixelClasses


class RandPixelPairsd(Randomizable, Transform):
    """Draw pixels in the query view and find their partners; adds ``query``, ``positive``, ``valid``, ... to the item.

    Pixels are drawn without repetition among those that the anchor view shows too, with weight
    ``informativeness ** exponent``. Missing ones, where the views hardly overlap, are marked in ``valid``.

    Args:
        number: Pixels per image (N).
        exponent: 0 draws uniformly, and then the item needs no entropy. 0.3 is the paper's.
        classes: Informativeness classes; their current ``ratios`` are the shares of the pixels drawn from each class
            (low, medium, high). None leaves the shares to the weights.
        image_key: The item holds the anchor view under ``image_key + "_anchor"``, and under ``coords_..._query``,
            ``entropy_..._query`` and ``class_..._query`` the maps of the query view.

    The item gets ``query`` (N, D) voxels of the query view, ``positive`` (N, D) voxels of the anchor view, not
    rounded, ``valid`` (N,) and, when the item has what they are made of, ``informativeness`` (N,) entropy at the query
    pixels in bits and ``pixel_class`` (N,).
    """

    def __init__(
        self,
        number: int = 256,
        exponent: float = 0.3,
        classes: PixelClasses | None = None,
        image_key: str = "image",
    ) -> None:
        self.number, self.exponent, self.classes, self.image_key = number, exponent, classes, image_key
        self.seed, self._entropy = 0, f"entropy_{image_key}_query"

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the pixel noise."""
        self.seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the pairs added."""
        item = dict(data)
        self.randomize()
        coords = item[f"coords_{self.image_key}_query"].as_tensor()[None]
        anchor = item[f"{self.image_key}_anchor"]
        affine = spatial_affine(torch.as_tensor(anchor.affine), anchor.ndim - 1)[None]
        shape = tuple(anchor.shape[1:])
        weights = overlap(coords, affine, shape).to(coords)
        uniform = self.exponent == 0 and self.classes is None
        if not uniform or self._entropy in item:
            weights = weights * self._weights(item)
        pixels, drawn = draw_pixels(weights, self.number, generator=torch.Generator().manual_seed(self.seed))
        pairs = correspond(coords, pixels, affine, shape)
        item["query"], item["positive"] = pairs.query[0], pairs.positive[0]
        item["valid"] = (pairs.valid & drawn)[0]
        at = (0, *pixels[0].long().unbind(-1))
        if self._entropy in item:
            item["informativeness"] = item[self._entropy].as_tensor()[at]
        if (classes := f"class_{self.image_key}_query") in item:
            item["pixel_class"] = item[classes].as_tensor()[at]
        return item

    def _weights(self, item: Mapping[Hashable, Any]) -> torch.Tensor:
        entropy = item[self._entropy].as_tensor()[None]
        ratios = None if self.classes is None else self.classes.ratios
        classes = None
        if ratios is not None:
            classes = item[f"class_{self.image_key}_query"].as_tensor()[None]
        return sampling_weights(entropy, exponent=self.exponent, class_ratios=ratios, classes=classes)
