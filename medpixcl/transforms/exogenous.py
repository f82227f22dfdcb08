"""Exogenous channels of an item: loaded from a file, brought to the grid of the image, scaled, exchanged.

Every channel is a ``MetaTensor`` of its values and, as the last channel, its validity (0 to 1), on the grid of the
image. :class:`medpixcl.transforms.RandPixelViewsd` moves it with the image, and intensity changes never touch it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from medpixcl.data.exogenous import DONOR, Grid, exogenous_path, read_exogenous
from medpixcl.transforms.validity import resample_to_grid, stretch


class LoadExogenousd(MapTransform):
    """Load the channels that the item names under ``exogenous``; each goes under its own name.

    Put it after the image is loaded and before that is resampled: file and image must have the same size.

    Args:
        keys: Names of the channels, as in the manifest.
        kind: ``continuous`` or ``categorical`` (whole numbers that name a class).
        missing: Values that mean "unknown", besides NaN; None means 0 and 65535 in continuous pictures and no value
            elsewhere.
        scale: Factor from stored values to the wanted unit.

    Raises:
        ValueError: If the item names no such channel, or :func:`medpixcl.data.exogenous.read_exogenous` refuses it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        kind: str = "continuous",
        missing: Sequence[float | int] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__(keys)
        self.kind, self.missing, self.scale = kind, missing, scale

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the channels added."""
        item = dict(data)
        image = item["image"]
        grid = Grid(tuple(image.shape[1:]), torch.as_tensor(image.affine))
        named = {**item, "image": image.meta.get("filename_or_obj", "the image")}
        for key in self.keys:
            item[key] = read_exogenous(
                exogenous_path(named, str(key)), grid, kind=self.kind, missing=self.missing, scale=self.scale
            )
        return item


class ExogenousGridd(MapTransform):
    """Bring exogenous channels to the grid of the image, after that was resampled to the working spacing.

    Positions are matched in mm. Where voxels get larger, known values are smoothed first, as the image was.

    Args:
        keys: Channels (values and validity).
        nearest_keys: Keys of channels that hold classes; they are sampled at the nearest voxel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        nearest_keys: Sequence[str] = (),
    ) -> None:
        super().__init__(keys)
        self.nearest_keys = tuple(nearest_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the channels resampled."""
        item = dict(data)
        image = item["image"]
        shape, target = tuple(image.shape[1:]), torch.as_tensor(image.affine)
        for key in self.key_iterator(item):
            source = torch.as_tensor(item[key].affine)
            if tuple(item[key].shape[1:]) == shape and torch.allclose(source, target.to(source), atol=1e-4):
                continue
            values = resample_to_grid(item[key].as_tensor(), source, shape, target, nearest=key in self.nearest_keys)
            item[key] = MetaTensor(values, affine=target)
        return item


class ScaleExogenousd(MapTransform):
    """Map two percentiles of the known values to 0 and 1, over the whole image.

    Use it for depth without a unit, such as a monocular depth network gives: within an image such depth is right up to
    one scale and one offset, which differ between images. Leave depth in mm as it is. Put this transform before any
    crop, because percentiles of each crop would give one tissue two values.

    Args:
        keys: Channels (values and validity).
        lower: Percentile that becomes 0.
        upper: Percentile that becomes 1; values beyond both percentiles are kept, not clipped.
    """

    def __init__(self, keys: KeysCollection, lower: float = 2.0, upper: float = 98.0) -> None:
        super().__init__(keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"lower is {lower} and upper {upper}; expected two ascending percentiles from 0 to 100.")
        self.lower, self.upper = lower, upper

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the channels scaled."""
        item = dict(data)
        for key in self.key_iterator(item):
            values, known = item[key].as_tensor()[:-1], item[key].as_tensor()[-1:] > 0
            scaled = [self._scaled(channel, known[0]) for channel in values]
            both = torch.cat([torch.stack(scaled), item[key].as_tensor()[-1:]])
            item[key] = MetaTensor(both, meta=dict(item[key].meta))
        return item

    def _scaled(self, values: Float[Tensor, "*s"], known: Tensor) -> Float[Tensor, "*s"]:
        ordered = values[known].sort().values
        low, high = (ordered[round(share / 100 * (len(ordered) - 1))] for share in (self.lower, self.upper))
        return torch.where(known, (values - low) / (high - low).clamp_min(1e-6), 0.0)


class MissingAsNaNd(MapTransform):
    """Channels of the views as :class:`medpixcl.losses.pixpro.PixProLoss` takes them: values alone, NaN where missing.

    Put it after the views are made; before, interpolation would spread the NaN.

    Args:
        keys: Views of channels (values and validity), such as ``depth_query`` and ``depth_anchor``.
        least_validity: Validity below which a pixel is missing.
    """

    def __init__(self, keys: KeysCollection, least_validity: float = 0.5) -> None:
        super().__init__(keys)
        self.least_validity = least_validity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the validity folded into the values."""
        item = dict(data)
        for key in self.key_iterator(item):
            channel = item[key].as_tensor()
            known = (channel[-1:] >= self.least_validity) & (channel[-1:] > 0)
            item[key] = MetaTensor(torch.where(known, channel[:-1], torch.nan), meta=dict(item[key].meta))
        return item


class ShuffledExogenousd(Transform):
    """Control "depth of another image": replace channels by a donor's, prepared alike and stretched to the grid.

    The relation between channel and image is lost; its appearance, its missing share and the number of pairs that it
    removes stay about the same.

    Args:
        keys: Keys of the channels to exchange.
        prepare: Whole preparation, loading included; it is applied to the item and to its donor.
        nearest_keys: Keys of channels that hold classes; they are sampled at the nearest voxel.

    Raises:
        ValueError: If an item carries no donor (:func:`medpixcl.data.exogenous.with_donors`), or one of other axes.
    """

    def __init__(
        self, keys: Sequence[str] | str, prepare: Callable[[Any], Any], nearest_keys: Sequence[str] = ()
    ) -> None:
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.prepare, self.nearest_keys = prepare, tuple(nearest_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the prepared item with the donor's channels."""
        own = dict(data)
        if (donor := own.pop(DONOR, None)) is None:
            raise ValueError(f"{own.get('image')}: no donor to take {self.keys[0]!r} from; make the data with_donors.")
        item, other = dict(self.prepare(own)), self.prepare(donor)
        for key in self.keys:
            nearest = key in self.nearest_keys
            values = stretch(other[key].as_tensor(), item[key].shape[1:], nearest=nearest)
            item[key] = MetaTensor(values, affine=item[key].affine)
        return item
