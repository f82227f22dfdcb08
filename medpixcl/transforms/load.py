"""Loading of any supported image file with its spacing."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import ImageMetaKey

from medpixcl.coordinates import pixel_for, spacing_of, spatial_affine, working_spacing
from medpixcl.data.images import read_image
from medpixcl.data.pixels import ImageFileError
from medpixcl.transforms.orientation import in_common_axes
from medpixcl.transforms.resampling import resampled

TOLERANCE = 0.01
"""Relative difference of spacing up to which an image is not resampled."""
LEAST_SIDE = 8
LARGEST_CHANGE = 100.0
"""Factor by which pixels may become larger or smaller; beyond it the spacing is wrong."""
MOST_PIXELS = 2**28
"""Largest number of pixels that an image may get, 1 GiB."""


class LoadImageMMd(MapTransform):
    """Replace the path under each key by the image, channel first, with a RAS+ affine in mm.

    An image that is in memory already, a MetaTensor as :func:`medpixcl.data.images.read_image` makes it, stays.
    Pictures (PNG, JPEG, ...) carry no spacing of their own; it is taken from the item's ``spacing_mm`` (array order),
    where a manifest has it, and so is the tolerance of a series, ``tolerance_mm``, that it was scanned with.

    Args:
        keys: Keys of image paths (a file, a folder with one DICOM series, or the list of its files).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images loaded."""
        item = dict(data)
        tolerance_mm = item.pop("tolerance_mm", None)  # not all images of a batch have one
        for key in self.key_iterator(item):
            if not isinstance(item[key], MetaTensor):
                item[key] = read_image(item[key], spacing_mm=item.get("spacing_mm"), tolerance_mm=tolerance_mm)
        return item


class WorkingSpacingd(MapTransform):
    """Bring images to common axes and to one spacing, smoothed first where pixels get larger, so that nothing aliases.

    Volumes of any orientation become RAS (:func:`medpixcl.transforms.orientation.in_common_axes`).

    Args:
        keys: Keys of images.
        spacing_mm: Size of a pixel along each of the common axes; None leaves the choice to ``longest_side``.
        longest_side: Largest number of pixels along an axis. Without ``spacing_mm`` an image gets pixels of one size
            along all axes, as small as this number allows, and not smaller than the smallest side of its own; a long
            narrow one gets smaller ones, so that it has as many as a cube of half the number. Images that are compared
            must have one spacing, see :func:`with_spacing_of`. None leaves the spacing unchanged.

    Raises:
        ValueError: If ``spacing_mm`` is no list of positive numbers, or ``longest_side`` no number from 8 up.
        ImageFileError: If an image has another number of axes than ``spacing_mm``, pixels of quite another size, or
            would get too many pixels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: Sequence[float] | None,
        longest_side: int | None = None,
    ) -> None:
        super().__init__(keys)
        self.spacing_mm = None if spacing_mm is None else _sizes(spacing_mm)
        if longest_side is not None and not (isinstance(longest_side, int) and longest_side >= LEAST_SIDE):
            raise ValueError(
                f"the longest side is {longest_side!r} pixels; expected a whole number from {LEAST_SIDE} up"
            )
        self.longest_side = longest_side

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images turned and resampled."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._resampled(in_common_axes(item[key]))
        return item

    def spacing_for(self, image: MetaTensor) -> list[float] | None:
        """Spacing that an image (C, *spatial) gets; None leaves its own."""
        if self.spacing_mm is not None or self.longest_side is None:
            return self.spacing_mm
        own = working_spacing(image)
        sides = [step * size for step, size in zip(own, image.shape[1:], strict=True)]
        return [max(pixel_for(sides, self.longest_side), min(own))] * len(own)

    def _resampled(self, image: MetaTensor) -> MetaTensor:
        wanted = self.spacing_for(image)
        if wanted is None:
            return image
        if (found := image.ndim - 1) != (expected := len(wanted)):
            reason = f"has {found} spatial axes; the working spacing has {expected}: take {expected}D images."
            raise ImageFileError(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image"), reason)
        spacing = spacing_of(spatial_affine(torch.as_tensor(image.affine), image.ndim - 1))
        factor = torch.as_tensor(wanted, dtype=spacing.dtype) / spacing
        if bool(((factor - 1).abs() < TOLERANCE).all()):
            return image
        if not bool(((factor <= LARGEST_CHANGE) & (factor >= 1 / LARGEST_CHANGE)).all()):
            sizes = " x ".join(f"{size:.3g}" for size in spacing.tolist())
            reason = f"has pixels of {sizes} mm, but the working spacing is {wanted} mm: check both."
            raise ImageFileError(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image"), reason)
        pixels = math.prod(image.shape[1:]) / math.prod(factor.tolist())
        if pixels > MOST_PIXELS:
            sizes = " x ".join(f"{size:.3g}" for size in wanted)
            reason = f"would have {pixels:.2g} pixels at the working spacing of {sizes} mm: check the spacing of both."
            raise ImageFileError(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image"), reason)
        # The usual rule for downsampling by f: a Gaussian of (f - 1) / 2 pixels.
        sigma = ((factor - 1) / 2).clamp(min=0)
        return resampled(image, wanted, sigma.tolist())


def open_spacing(chain: Compose) -> bool:
    """True if a chain of transforms gives every image a spacing of its own."""
    return any(map(_is_open, chain.transforms))


def with_spacing_of(item: Mapping[str, Any], chain: Compose, longest_side: int | None = None) -> Compose:
    """Copy a chain of transforms so that it brings all images to the spacing that it gives to one of them.

    Args:
        item: Item of that image; it goes through the transforms before the first that leaves the spacing open.
        chain: Transforms that load and prepare images, one of them with an open spacing.
        longest_side: Number of pixels in place of that of the transform.
    """
    steps = list(chain.transforms)
    first = next(number for number, step in enumerate(steps) if _is_open(step))
    data: Any = Compose(steps[:first])(dict(item))
    image = in_common_axes(data[steps[first].first_key(data)])
    chosen = steps[first] if longest_side is None else WorkingSpacingd(steps[first].keys, None, longest_side)
    spacing_mm = chosen.spacing_for(image)
    return Compose([WorkingSpacingd(step.keys, spacing_mm) if _is_open(step) else step for step in steps])


def working_spacing_for(item: Mapping[str, Any], longest_side: int) -> list[float]:
    """Spacing in mm that :class:`WorkingSpacingd` gives to the image of an item by ``longest_side`` alone.

    A configuration takes it where every length follows the size of an annotated image.

    Args:
        item: Item of a datalist.
        longest_side: Largest number of pixels along an axis.
    """
    data: Any = dict(item)
    image = in_common_axes(LoadImageMMd("image")(data)["image"])
    return WorkingSpacingd("image", None, longest_side).spacing_for(image) or working_spacing(image)


def _is_open(step: Any) -> bool:
    return isinstance(step, WorkingSpacingd) and step.spacing_mm is None and step.longest_side is not None


def _sizes(spacing_mm: Any) -> list[float]:
    try:
        sizes = [float(size) for size in spacing_mm]
    except (TypeError, ValueError):
        sizes = []
    if not sizes or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"the working spacing is {spacing_mm!r}; expected a list with a positive number for each axis")
    return sizes
