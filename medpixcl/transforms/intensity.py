"""Random changes of intensity: of whole images, or as strong as the informativeness of the pixel allows."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from medpixcl.blur import gaussian_blur
from medpixcl.transforms.convolution import random_contrast
from medpixcl.views import smooth_field

CLASS_NAMES = ("low", "medium", "high")
ALWAYS_DRAWN = ("brightness", "contrast", "gamma", "noise", "blur", "bias")
BIAS_CONTROL_POINTS = 4  # per axis, of the smooth multiplicative field


@dataclass(frozen=True)
class IntensityRanges:
    """Ranges from which one change of intensity is drawn; the default changes nothing.

    Attributes:
        brightness: Factor of all values.
        contrast: Factor of the distance to the mean.
        gamma: Exponent of the values (between 0 and 1); drawn on a logarithmic scale.
        noise: Standard deviation of Gaussian noise.
        blur: Standard deviation of a Gaussian blur in pixels.
        bias: Standard deviation of the logarithm of a smooth multiplicative field.
        window: Distance by which an end of the range of values moves inwards, drawn for each end; what lies beyond
            becomes 0 or 1. For CT, whose windows differ from one reader to another.
        convolution: Share of the image that is replaced by its random convolutions, see
            :func:`medpixcl.transforms.convolution.random_contrast`. For MR, whose contrasts differ.
    """

    brightness: Sequence[float] = (1.0, 1.0)
    contrast: Sequence[float] = (1.0, 1.0)
    gamma: Sequence[float] = (1.0, 1.0)
    noise: Sequence[float] = (0.0, 0.0)
    blur: Sequence[float] = (0.0, 0.0)
    bias: Sequence[float] = (0.0, 0.0)
    window: Sequence[float] = (0.0, 0.0)
    convolution: Sequence[float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            if len(values) != 2 or not 0 <= values[0] <= values[1]:
                raise ValueError(f"{field.name} must be two ascending numbers from 0 up, found {list(values)}")
        if self.gamma[0] == 0:
            raise ValueError(f"gamma must be two ascending numbers above 0, found {list(self.gamma)}")
        if self.window[1] >= 0.5:
            raise ValueError(f"window must be two ascending numbers below 0.5, found {list(self.window)}")
        if self.convolution[1] > 1:
            raise ValueError(f"convolution must be two ascending numbers up to 1, found {list(self.convolution)}")

    def sample(self, state: np.random.RandomState) -> "Intensity":
        """Draw one change."""
        drawn = {name: float(state.uniform(*getattr(self, name))) for name in ALWAYS_DRAWN}
        low, high = np.log(self.gamma)
        drawn["gamma"] = float(np.exp(state.uniform(low, high)))
        seed = int(state.randint(2**31))
        # Drawn only where asked for: a seed gives the same changes whether or not these exist.
        below, above, share = [_drawn_if_on(state, ends) for ends in (self.window, self.window, self.convolution)]
        return Intensity(**drawn, seed=seed, window=(below, 1 - above), convolution=share)


def _drawn_if_on(state: np.random.RandomState, ends: Sequence[float]) -> float:
    """A number between two ends; 0, and nothing drawn, where both are 0."""
    return float(state.uniform(ends[0], ends[1])) if ends[1] > 0 else 0.0


@dataclass(frozen=True)
class Intensity:
    """One change of intensity, see :class:`IntensityRanges`.

    ``window`` holds the values that become 0 and 1; ``seed`` fixes noise, field and convolutions.
    """

    brightness: float
    contrast: float
    gamma: float
    noise: float
    blur: float
    bias: float
    seed: int
    window: tuple[float, float] = (0.0, 1.0)
    convolution: float = 0.0

    def apply(self, image: Tensor) -> Tensor:
        """Change an image (C, *spatial) of values between 0 and 1; the result is clipped to that range."""
        generator = torch.Generator().manual_seed(self.seed)
        dims = image.ndim - 1
        changed = self._remapped(image, generator) ** self.gamma
        if self.bias > 0:
            shape = (1, 1, *[BIAS_CONTROL_POINTS] * dims)
            field = torch.randn(shape, generator=generator).to(image) * self.bias
            changed = changed * smooth_field(field, image.shape[1:])[0].exp()
        mean = changed.mean()
        changed = ((changed - mean) * self.contrast + mean) * self.brightness
        if self.blur > 0:
            changed = gaussian_blur(changed, [self.blur] * dims)
        if self.noise > 0:
            changed = changed + torch.randn(image.shape, generator=generator).to(image) * self.noise
        return changed.clamp(0, 1)

    def _remapped(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Image seen through the window, a share of it replaced by its random convolutions; between 0 and 1."""
        low, high = self.window
        seen = image if self.window == (0.0, 1.0) else (image - low) / (high - low)
        seen = seen.clamp(0, 1)
        if self.convolution == 0:
            return seen
        return seen.lerp(random_contrast(seen, generator), self.convolution).clamp(0, 1)


class RandIntensityd(MapTransform, Randomizable):
    """Random brightness, contrast, gamma, noise, blur, bias field, window and convolutions of whole images.

    Args:
        keys: Images between 0 and 1.
        ranges: Ranges of the changes; keys and values as in :class:`IntensityRanges`.
        probability: Probability that an image is changed at all.
    """

    def __init__(self, keys: KeysCollection, ranges: Mapping[str, Sequence[float]], probability: float = 1.0) -> None:
        super().__init__(keys)
        self.ranges, self.probability = IntensityRanges(**ranges), probability

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images changed."""
        item = dict(data)
        for key in self.key_iterator(item):
            change, changed = self.ranges.sample(self.R), self.R.uniform() < self.probability
            if changed:
                item[key] = MetaTensor(change.apply(item[key].as_tensor()), meta=dict(item[key].meta))
        return item


class RandClassIntensityd(MapTransform, Randomizable):
    """Brightness, contrast and the like, with one strength per class of informativeness.

    Args:
        keys: Images between 0 and 1.
        low: Ranges for pixels of low informativeness; keys and values as in :class:`IntensityRanges`.
        medium: Ranges for pixels of medium informativeness.
        high: Ranges for pixels of high informativeness.
        mode: ``drawn`` draws one pixel by informativeness, whose class sets the change of the whole view, as in the
            paper; ``pixel`` changes every pixel by its own class.
        exponent: Exponent of the informativeness in the weights by which ``drawn`` draws its pixel.
        probability: Probability that a view is changed at all.

    For a key ``image_query`` the item holds ``class_image_query`` and ``entropy_image_query``.

    Reference: arXiv 2211.07118. The paper changes brightness and contrast only; the other changes are ours.
    """

    def __init__(
        self,
        keys: KeysCollection,
        low: Mapping[str, Sequence[float]],
        medium: Mapping[str, Sequence[float]],
        high: Mapping[str, Sequence[float]],
        mode: Literal["drawn", "pixel"] = "drawn",
        exponent: float = 0.3,
        probability: float = 1.0,
    ) -> None:
        super().__init__(keys)
        if mode not in ("drawn", "pixel"):
            raise ValueError(f"mode must be 'drawn' or 'pixel', found {mode!r}")
        self.ranges = [IntensityRanges(**ranges) for ranges in (low, medium, high)]
        self.mode, self.exponent, self.probability = mode, exponent, probability

    def randomize(self, data: Any = None) -> list[Intensity]:
        """Draw one change per class."""
        return [ranges.sample(self.R) for ranges in self.ranges]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images changed."""
        item = dict(data)
        for key in self.key_iterator(item):
            changes = self.randomize()
            spot = self.R.uniform()
            if self.R.uniform() >= self.probability:
                continue
            image, classes = item[key].as_tensor(), item[f"class_{key}"].as_tensor()
            if self.mode == "drawn":
                changed = changes[self._drawn_class(item, key, spot)].apply(image)
            else:
                versions = torch.stack([change.apply(image) for change in changes])
                changed = versions.gather(0, classes.expand_as(image)[None].long())[0]
            item[key] = MetaTensor(changed, meta=item[key].meta)  # the file's name with it, for messages
        return item

    def _drawn_class(self, item: Mapping[Hashable, Any], key: Hashable, spot: float) -> int:
        """Class of a pixel drawn by informativeness, ``spot`` being where in the cumulative weights it falls."""
        weights = item[f"entropy_{key}"].as_tensor().flatten().double() ** self.exponent
        total = weights.cumsum(0)
        index = int(torch.searchsorted(total, spot * total[-1]).clamp(max=len(total) - 1))
        return int(item[f"class_{key}"].as_tensor().flatten()[index])
