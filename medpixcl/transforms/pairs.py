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
        number: Number N of pixels drawn in each image.
        exponent: Exponent of the informativeness in the weights, 0.3 in the paper; with 0 pixels are drawn uniformly
            and the item needs no entropy.
        classes: Informativeness classes; their current ``ratios`` are the shares of the pixels drawn from each class
            (low, medium, high). None leaves the shares to the weights.

    The item gets ``query`` (N, D) voxels of the query view, ``positive`` (N, D) voxels of the anchor view, not
    rounded, ``valid`` (N,) and, when the item has what they are made of, ``informativeness`` (N,) entropy at the query
    pixels in bits and ``pixel_class`` (N,).
    """

    def __init__(
        self,
        number: int = 256,
        exponent: float = 0.3,
        classes: PixelClasses | None = None,
    ) -> None:
        self.number, self.exponent, self.classes = number, exponent, classes
        self.seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the pixel noise."""
        self.seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the pairs added."""
        item = dict(data)
        self.randomize()
        coords = item["coords_image_query"].as_tensor()[None]
        anchor = item["image_anchor"]
        affine = spatial_affine(torch.as_tensor(anchor.affine), anchor.ndim - 1)[None]
        shape = tuple(anchor.shape[1:])
        weights = overlap(coords, affine, shape).to(coords)
        uniform = self.exponent == 0 and self.classes is None
        if not uniform or "entropy_image_query" in item:
            weights = weights * self._weights(item)
        pixels, drawn = draw_pixels(weights, self.number, generator=torch.Generator().manual_seed(self.seed))
        pairs = correspond(coords, pixels, affine, shape)
        item["query"], item["positive"] = pairs.query[0], pairs.positive[0]
        item["valid"] = (pairs.valid & drawn)[0]
        at = (0, *pixels[0].long().unbind(-1))
        if "entropy_image_query" in item:
            item["informativeness"] = item["entropy_image_query"].as_tensor()[at]
        if "class_image_query" in item:
            item["pixel_class"] = item["class_image_query"].as_tensor()[at]
        return item

    def _weights(self, item: Mapping[Hashable, Any]) -> torch.Tensor:
        entropy = item["entropy_image_query"].as_tensor()[None]
        ratios = None if self.classes is None else self.classes.ratios
        classes = None
        if ratios is not None:
            classes = item["class_image_query"].as_tensor()[None]
        return sampling_weights(entropy, exponent=self.exponent, class_ratios=ratios, classes=classes)
