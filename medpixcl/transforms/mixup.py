"""Cross-domain mix-up: a medical image under or over one of another domain, and how opaque it is.

``mixed = opacity * target + (1 - opacity) * source``: the opacity is that of the medical image (the target); the
transparency of the papers is one minus it.
"""

from collections.abc import Hashable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import ImageMetaKey
from torch import Tensor
from torch.nn import functional as F

from medpixcl.data.textures import lift_picture
from medpixcl.transforms.source_matching import MATCHES, match_source

LARGEST_WINDOWED = 100.0
MAPS = ("constant", "grid", "boxes")
Numbers = Sequence[float | int]


class Mixed(NamedTuple):
    """A mixed image and all it was made of; images are (C, *spatial).

    ``opacity`` has shape (1,): the mean of ``opacity_map`` over the foreground. ``opacity_map`` is (1, *spatial), and 1
    where the target was left as it is. ``foreground`` has shape (1,): the share of the foreground.
    """

    image: Float[Tensor, " c *s"]
    target: Float[Tensor, " c *s"]
    source: Float[Tensor, " c *s"]
    opacity: Float[Tensor, " 1"]
    opacity_map: Float[Tensor, " 1 *s"]
    foreground: Float[Tensor, " 1"]


def mix_images(
    target: Float[Tensor, " c *s"], source: Float[Tensor, " c *s"], opacity: Float[Tensor, "..."] | float
) -> Float[Tensor, " c *s"]:
    """Lay the target with this opacity over the source.

    Example:
        >>> mix_images(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), 0.75)
        tensor([[0.2500, 0.7500]])
    """
    return opacity * target + (1 - opacity) * source


def window_intensity(image: Float[Tensor, " c *s"], window: Numbers) -> Float[Tensor, " c *s"]:
    """The window's ends to 0 and 1; what lies beyond is clipped."""
    low, high = window
    return ((image - low) / (high - low)).clamp(0, 1)


def grid_opacity(control: Float[np.ndarray, "*g"], shape: Sequence[int]) -> Float[Tensor, " 1 *s"]:
    """Opacity interpolated linearly between control points that reach from edge to edge."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    values = torch.from_numpy(control).float()[None, None]
    return F.interpolate(values, tuple(shape), mode=mode, align_corners=True)[0]


class RandCrossDomainMixUp(Randomizable, Transform):
    """Mix an image with one drawn from a stream of sources, by an opacity drawn for it.

    Windowing comes first, then the source is made grey, cut to size and given statistics of the target, then both are
    mixed: opacity is not to be read from the brightness, contrast or colour alone.

    Args:
        sources: Map-style dataset of images (C, *spatial), or of items that hold one under ``source_key``, such as
            :class:`medpixcl.data.textures.ProceduralSources`; medical images for mixing within a domain. Larger ones
            are cut at random; pictures are lifted for a volume (:func:`medpixcl.data.textures.lift_picture`).
        opacity_range: Least and greatest opacity.
        beta: Parameter of the Beta(beta, beta) law that draws the opacity within ``opacity_range``; None draws
            uniformly.
        opacity_levels: Opacities to draw among, all equally often, instead of from the range.
        opacity_map: ``constant``; ``grid``, linear between control points; ``boxes``, each with an opacity of its own.
        grid_points: Control points per axis.
        boxes: Least and greatest number of boxes.
        window: Intensities of the target that become 0 and 1; None for images that are windowed already.
        source_window: Intensities of the sources that become 0 and 1, for sources that are medical images.
        match: Statistics that the source gets from the target: ``none``; ``moments``, mean and spread; ``spectrum``,
            the power at every frequency and the histogram (:func:`medpixcl.transforms.source_matching.match_source`).
        foreground_threshold: Windowed value above which a voxel is foreground; None takes all voxels.
        mix_background: Mix outside the foreground, too; otherwise the target's background is unchanged.
        grey_source: Replace the channels of a source by their mean; otherwise channels are mixed one by one.
        source_key: Key of the image in the items of a stream of items.

    Raises:
        ValueError: If an argument is out of range, the stream is empty, a source is smaller than the image or holds
            NaN, the image holds NaN or is not windowed.
    """

    def __init__(
        self,
        sources: Any,
        opacity_range: Numbers = (0.2, 0.8),
        beta: float | int | None = None,
        opacity_levels: Numbers | None = None,
        opacity_map: str = "constant",
        grid_points: int = 4,
        boxes: Sequence[int] = (10, 40),
        window: Numbers | None = None,
        source_window: Numbers | None = None,
        match: str = "moments",
        foreground_threshold: float | int | None = None,
        mix_background: bool = False,
        grey_source: bool = True,
        source_key: str = "image",
    ) -> None:
        _check(sources, opacity_range, beta)
        _check_choice("opacity_map", opacity_map, MAPS)
        _check_choice("match", match, MATCHES)
        _check_levels(opacity_levels)
        self.sources, self.opacity_range, self.beta = sources, tuple(opacity_range), beta
        self.opacity_levels = opacity_levels
        self.opacity_map, self.grid_points, self.boxes = opacity_map, grid_points, tuple(boxes)
        self.window, self.source_window, self.match = window, source_window, match
        self.foreground_threshold, self.mix_background = foreground_threshold, mix_background
        self.grey_source, self.source_key = grey_source, source_key

    def __call__(self, image: Tensor, foreground: Tensor | None = None) -> Mixed:
        """Mix one image (C, *spatial); ``foreground`` (1, *spatial) stands before the threshold."""
        name = (
            str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image"))
            if isinstance(image, MetaTensor)
            else "the image"
        )
        target = self._target(image, name)
        seen = self._foreground(target, foreground)
        source = match_source(self._source(target, name), target, seen, self.match)
        opacity = self._draw_map(target.shape[1:]).to(target.device)
        if not self.mix_background:
            opacity = torch.where(seen, opacity, 1.0)
        mixed = mix_images(target, source, opacity)
        share = seen.float().mean().view(1) if self._has_foreground(foreground) else torch.ones(1, device=target.device)
        return Mixed(mixed, target, source, opacity[seen].double().mean().float().view(1), opacity, share)

    def _has_foreground(self, foreground: Tensor | None) -> bool:
        return foreground is not None or self.foreground_threshold is not None

    def _target(self, image: Tensor, name: str) -> Float[Tensor, " c *s"]:
        target = _plain(image)
        _check_finite(target, name)
        if self.window is not None:
            return window_intensity(target, self.window)
        if target.abs().max() > LARGEST_WINDOWED:
            raise ValueError(
                f"{name} has values from {target.min():g} to {target.max():g}; "
                "window intensities to about 0 to 1 before they are mixed, or give window=[low, high]."
            )
        return target

    def _foreground(self, target: Tensor, foreground: Tensor | None) -> Bool[Tensor, " 1 *s"]:
        """Mask of the voxels to mix; all voxels if the image has no foreground."""
        if foreground is not None:
            seen = _plain(foreground)[:1] > 0
        elif self.foreground_threshold is not None:
            seen = (target > self.foreground_threshold).any(dim=0, keepdim=True)
        else:
            return torch.ones_like(target[:1], dtype=torch.bool)
        return seen if seen.any() else torch.ones_like(seen)

    def _source(self, target: Tensor, name: str) -> Float[Tensor, " c *s"]:
        values, label = self._drawn(name)
        values = values.to(target.device)
        _check_finite(values, label)
        if self.source_window is not None:
            values = window_intensity(values, self.source_window)
        if self.grey_source:
            values = values.mean(dim=0, keepdim=True)
        values = self._fitted(values, tuple(target.shape[1:]), label)
        if len(values) not in (1, len(target)):
            raise ValueError(f"{label} has {len(values)} channels and {name} {len(target)}; set grey_source.")
        return values.expand(len(target), *values.shape[1:])

    def _drawn(self, name: str) -> tuple[Tensor, str]:
        """A source and what to call it; never the file that is mixed."""
        number = len(self.sources)
        first = int(self.R.randint(number, dtype=np.int64))
        for step in range(number):
            index = (first + step) % number
            found = self.sources[index]
            image = found[self.source_key] if isinstance(found, Mapping) else found
            label = f"source {index}"
            if isinstance(image, MetaTensor) and (file := image.meta.get(ImageMetaKey.FILENAME_OR_OBJ)):
                label = str(file)
            if label != name:
                return _plain(image), label
        raise ValueError(f"{name} is the only image in the stream of sources; give a stream with other images.")

    def _fitted(self, values: Tensor, shape: tuple[int, ...], label: str) -> Float[Tensor, " c *s"]:
        """Cut or lifted to the shape of the target, mirrored at random."""
        dims = values.ndim - 1
        lifted = (dims, len(shape)) == (2, 3)
        if dims != len(shape) and not lifted:
            raise ValueError(f"{label} has {dims} axes and the image {len(shape)}; give sources of as many, or of two.")
        if any(have < want for have, want in zip(values.shape[1:], shape, strict=False)):
            raise ValueError(
                f"{label} has shape {tuple(values.shape[1:])}, smaller than the patch {shape}; take smaller patches, "
                "or enlarge the sources (shape of ProceduralSources, smallest_side of PictureSources)."
            )
        if lifted:
            values = lift_picture(values, shape, np.random.default_rng(self.R.randint(2**32, dtype=np.int64)))
        starts = [int(self.R.randint(have - want + 1)) for have, want in zip(values.shape[1:], shape, strict=True)]
        cut = values[(slice(None), *[slice(start, start + want) for start, want in zip(starts, shape, strict=True)])]
        return cut.flip([axis + 1 for axis in range(len(shape)) if self.R.random_sample() < 0.5])

    def _draw(self, size: Sequence[int]) -> np.ndarray:
        """Opacities by the law."""
        if self.opacity_levels is not None:
            return np.asarray(self.opacity_levels, dtype=float)[self.R.randint(len(self.opacity_levels), size=size)]
        low, high = self.opacity_range
        drawn = self.R.uniform(size=size) if self.beta is None else self.R.beta(self.beta, self.beta, size=size)
        return low + (high - low) * drawn

    def _draw_map(self, shape: Sequence[int]) -> Float[Tensor, " 1 *s"]:
        if self.opacity_map == "grid":
            return grid_opacity(self._draw([self.grid_points] * len(shape)), shape)
        values = torch.full((1, *shape), float(self._draw([1])[0]))
        if self.opacity_map == "boxes":
            for opacity in self._draw([int(self.R.randint(self.boxes[0], self.boxes[1] + 1))]):
                values[0][self._box(shape)] = float(opacity)
        return values

    def _box(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """A tenth to a half of every axis."""
        sizes = [max(round(size * self.R.uniform(0.1, 0.5)), 1) for size in shape]
        starts = [int(self.R.randint(whole - size + 1)) for whole, size in zip(shape, sizes, strict=True)]
        return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


class RandCrossDomainMixUpd(MapTransform, Randomizable):
    """:class:`RandCrossDomainMixUp` of a dictionary: the mixed image takes the place of the image.

    Beside it stand, for a key ``image``: ``image_target`` and ``image_source`` (as mixed), ``image_opacity`` and
    ``image_foreground`` of shape (1,), and ``image_opacity_map`` (1, *spatial); all float32. The state of a dataset
    that seeds every item (:class:`medpixcl.data.seeded.SeededDataset`) decides every draw.

    Args:
        keys: Keys of the images; each image is mixed with a source of its own.
        sources: Stream of sources, see :class:`RandCrossDomainMixUp`.
        foreground_key: Key of the mask of the foreground; None uses the threshold.
        **options: Further options of :class:`RandCrossDomainMixUp`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        sources: Any,
        foreground_key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(keys)
        self.mixup, self.foreground_key = RandCrossDomainMixUp(sources, **options), foreground_key

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandCrossDomainMixUpd":
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.mixup.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the mixed images and what they are made of."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            mixed = self.mixup(image, None if self.foreground_key is None else item[self.foreground_key])
            meta = dict(image.meta) if isinstance(image, MetaTensor) else None
            for name in ("image", "target", "source", "opacity_map"):
                values = getattr(mixed, name)
                item[f"{key}_{name}" if name != "image" else key] = MetaTensor(values, meta=meta and dict(meta))
            item[f"{key}_opacity"], item[f"{key}_foreground"] = mixed.opacity, mixed.foreground
        return item


def _plain(image: Tensor) -> Tensor:
    values = image.as_tensor() if isinstance(image, MetaTensor) else image
    return values.float()


def _check_finite(values: Tensor, name: str) -> None:
    if bad := int((~values.isfinite()).sum()):
        raise ValueError(f"{name} holds {bad} voxels that are not finite (NaN or Inf); repair or leave out the image.")


def _check(sources: Sized, opacity_range: Numbers, beta: float | int | None) -> None:
    if len(sources) == 0:
        raise ValueError("the stream of sources is empty; give at least one image to mix with.")
    low, high = opacity_range
    if not 0 <= low <= high <= 1:
        raise ValueError(f"opacity_range is {low} to {high}; expected two ascending numbers from 0 to 1.")
    if beta is not None and beta <= 0:
        raise ValueError(f"beta is {beta}; expected a number above 0, or None for the uniform law.")


def _check_choice(option: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ValueError(f"{option} is {given!r}; expected one of {', '.join(choices)}.")


def _check_levels(levels: Numbers | None) -> None:
    if levels is not None and (len(levels) < 2 or min(levels) < 0 or max(levels) > 1):
        raise ValueError(f"opacity_levels is {list(levels)}; expected at least two numbers from 0 to 1.")
