"""Bring images of any kind to the values and the size that the networks take."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Resize, ScaleIntensityRange, ScaleIntensityRangePercentiles


class UnitIntensityd(MapTransform):
    """Scale intensities to 0..1 by a fixed window or, without one, by the percentiles 0.5 and 99.5 of each image.

    Values beyond the window or the percentiles are clipped.

    Args:
        keys: Keys of images (C, *spatial).
        window: Intensities that become 0 and 1, in the unit of the image, such as ``(-1000, 600)`` HU; None takes the
            percentiles.

    Raises:
        ValueError: If ``window`` is not two ascending numbers.

    Example:
        >>> import torch
        >>> scaled = UnitIntensityd("image", window=(-100, 100))({"image": torch.tensor([[-200.0, 0.0, 50.0]])})
        >>> scaled["image"].tolist()
        [[0.0, 0.5, 0.75]]
    """

    def __init__(self, keys: KeysCollection, window: Sequence[float | int] | None = None) -> None:
        super().__init__(keys)
        self.scale: Any = ScaleIntensityRangePercentiles(lower=0.5, upper=99.5, b_min=0.0, b_max=1.0, clip=True)
        if window is not None:
            self.scale = ScaleIntensityRange(*_ends(window), b_min=0.0, b_max=1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images scaled."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.scale(item[key])
        return item


class LongestSided(MapTransform):
    """Resize images to a length of their longest side, all sides by the same factor, smoothed where they shrink.

    Args:
        keys: Keys of images (C, *spatial) of two or three spatial axes.
        side: Number of pixels of the longest side; None leaves the images unchanged.
    """

    def __init__(self, keys: KeysCollection, side: int | None) -> None:
        super().__init__(keys)
        self.side = side

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images resized."""
        item = dict(data)
        for key in self.key_iterator(item) if self.side is not None else ():
            mode = "bilinear" if item[key].ndim == 3 else "trilinear"
            item[key] = Resize(self.side, size_mode="longest", mode=mode, anti_aliasing=True)(item[key])
        return item


def _ends(window: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in window)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise ValueError(
            f"the window is {window!r}; expected two ascending numbers, the intensities that become 0 and 1"
        )
    return low, high
