"""Crop of uniform edges, as a screenshot or a film on a page has them."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialCrop
from torch import Tensor

from medpixcl.coordinates import working_spacing

TOLERANCE = 0.02
"""Share of an image's range of values within which a line of pixels counts as uniform: compression leaves noise."""


class CropUniformEdgesd(MapTransform):
    """Crop what is uniform at the sides of images, such as black bars, but for a margin.

    A network that normalises each image by its own mean and deviation is surer of itself the more of an image is black.
    The affine follows, so that positions stay where they are; an image without such edges is returned as it is.

    Args:
        keys: Keys of images (C, *spatial) with an affine.
        margin_mm: Width in mm of the uniform edge that stays on each side, for what is too dark to be seen.
    """

    def __init__(self, keys: KeysCollection, margin_mm: float = 20.0) -> None:
        super().__init__(keys)
        self.margin_mm = margin_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images cropped."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._cropped(item[key])
        return item

    def _cropped(self, image: MetaTensor) -> MetaTensor:
        starts, ends = [], []
        for (first, last), size, mm in zip(
            content_box(image.as_tensor()), image.shape[1:], working_spacing(image), strict=True
        ):
            margin = round(self.margin_mm / mm)
            starts.append(max(0, first - margin))
            ends.append(min(size, last + margin))
        if not any(starts) and tuple(ends) == tuple(image.shape[1:]):
            return image
        return SpatialCrop(roi_start=starts, roi_end=ends)(image)


def content_box(image: Tensor) -> list[tuple[int, int]]:
    """Find the box of an image (C, *spatial) without the uniform lines (or planes) at its sides.

    Frames within frames are followed. An image that is uniform everywhere is all content.

    Returns:
        First index and the one behind the last, for each axis.

    Example:
        >>> content_box(torch.nn.functional.pad(torch.rand(1, 5, 4), (3, 1, 0, 2)))
        [(0, 5), (3, 7)]
    """
    axes = range(1, image.ndim)
    box = [(0, int(size)) for size in image.shape[1:]]
    limit = TOLERANCE * float(image.max() - image.min())
    while True:
        inner = image[(slice(None), *(slice(*side) for side in box))]
        found = [_uneven(inner, axis, limit) for axis in axes]
        if any(side is None for side in found):
            return [(0, int(size)) for size in image.shape[1:]]
        known = [side for side in found if side is not None]
        smaller = [(start + first, start + last) for (start, _), (first, last) in zip(box, known, strict=True)]
        if smaller == box:
            return box
        box = smaller


def _uneven(image: Tensor, axis: int, limit: float) -> tuple[int, int] | None:
    """Range of the lines across an axis between the first and the last that is not uniform; None if all are."""
    lines = image.movedim(axis, 0).flatten(1)
    uneven = torch.nonzero(lines.amax(dim=1) - lines.amin(dim=1) > limit)[:, 0]
    return None if len(uneven) == 0 else (int(uneven[0]), int(uneven[-1]) + 1)
