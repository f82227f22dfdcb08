"""Two random views of a whole image, as contrastive learning of instances takes them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleCropd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resized,
)


class RandTwoViewsd(MapTransform, Randomizable):
    """Applies one chain of random transforms twice to each image, and keeps both results.

    ``{key}_first`` and ``{key}_second`` are drawn independently of each other. The image itself stays as it is.

    Args:
        keys: Keys of the images.
        changes: Dictionary transforms of the key, random or not, in their order.

    Example:
        >>> import torch
        >>> from monai.transforms import RandShiftIntensityd
        >>> views = RandTwoViewsd("image", [RandShiftIntensityd("image", offsets=1.0, prob=1.0)]).set_random_state(0)
        >>> sorted(views({"image": torch.zeros(1, 2, 2)}))
        ['image', 'image_first', 'image_second']
    """

    def __init__(self, keys: KeysCollection, changes: Sequence[Any]) -> None:
        super().__init__(keys)
        self.changes = Compose(list(changes))

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RandTwoViewsd":
        """Seed all transforms of the chain."""
        super().set_random_state(seed, state)
        self.changes.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw both views of every image."""
        item = dict(data)
        for key in self.key_iterator(item):
            for name in ("first", "second"):
                changed: Any = self.changes({key: item[key].clone()})
                item[f"{key}_{name}"] = changed[key]
        return item


class RandContrastViewsd(RandTwoViewsd):
    """Two random crops of each image with changes of intensity, the usual views of contrastive learning.

    Both views are crops resized to one shape, mirrored left to right for half of them by default, with other contrast,
    brightness, sharpness and noise. The baseline after SimCLR (Chen et al., arXiv 2002.05709), section 3, for images
    without colour.

    Args:
        keys: Keys of images (C, *spatial) with values between 0 and 1.
        view_shape: Size of the views in pixels.
        least_crop: Least side of a crop as a share of the image's side.
        flip_share: Probability that a view is mirrored: along the last axis of a picture, the first of a volume.
    """

    def __init__(
        self, keys: KeysCollection, view_shape: Sequence[int], least_crop: float = 0.6, flip_share: float = 0.5
    ) -> None:
        dims = len(view_shape)
        mode = "bilinear" if dims == 2 else "trilinear"
        super().__init__(
            keys,
            [
                RandScaleCropd(keys, roi_scale=least_crop, max_roi_scale=1.0, random_size=True),
                Resized(keys, spatial_size=view_shape, mode=mode, anti_aliasing=False),
                RandFlipd(keys, prob=flip_share, spatial_axis=1 if dims == 2 else 0),
                RandAdjustContrastd(keys, prob=0.8, gamma=(0.6, 1.6)),
                RandScaleIntensityd(keys, prob=0.8, factors=0.4),
                RandShiftIntensityd(keys, prob=0.8, offsets=0.2),
                RandGaussianSmoothd(keys, prob=0.5),
                RandGaussianNoised(keys, prob=0.5, std=0.03),
            ],
        )
