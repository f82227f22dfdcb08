"""Cephalograms as others might have made them, and wrong ones: changes of an image and of its true landmarks."""

from collections.abc import Callable
from functools import partial

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

SPACING_MM = 0.5
Change = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Function from an image (1, rows, columns), 0 to 1, its true voxels (K, 2) and a generator to those of the changed
image; NaN for landmarks that it does not show."""


def rescaled(image: Tensor) -> Tensor:
    """Grey values from the percentiles 0.5 and 99.5 to 0 and 1, as the detectors' preparation does."""
    low, high = image.flatten().quantile(image.new_tensor([0.005, 0.995]))
    return ((image - low) / (high - low)).clamp(0, 1)


def blurred(image: Tensor, sigma_mm: float) -> Tensor:
    """Image under a Gaussian."""
    return GaussianFilter(2, sigma_mm / SPACING_MM)(image[None])[0]


def unchanged(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As it is."""
    return image, true


def gamma(image: Tensor, true: Tensor, generator: torch.Generator, *, power: float) -> tuple[Tensor, Tensor]:
    """Another curve of the grey values."""
    return image**power, true


def blur(image: Tensor, true: Tensor, generator: torch.Generator, *, sigma_mm: float) -> tuple[Tensor, Tensor]:
    """A blurred image."""
    return rescaled(blurred(image, sigma_mm)), true


def low_resolution(image: Tensor, true: Tensor, generator: torch.Generator, *, factor: int) -> tuple[Tensor, Tensor]:
    """Pixels so many times as large, then interpolated to the size of before."""
    small = F.avg_pool2d(image[None], factor, ceil_mode=True, count_include_pad=False)
    large = F.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)[0]
    return rescaled(large[:, : image.shape[1], : image.shape[2]]), true


def cropped(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A fifth less in height and width, half of it on each side; landmarks beyond are gone."""
    edge = [int(0.1 * size) for size in image.shape[1:]]
    inner = image[:, edge[0] : -edge[0], edge[1] : -edge[1]]
    moved = true - true.new_tensor(edge)
    outside = ((moved < 0) | (moved > moved.new_tensor(inner.shape[1:]) - 1)).any(dim=1)
    return inner, moved.masked_fill(outside[:, None], torch.nan)


def other_device(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise, then an unsharp mask."""
    noisy = (image + 0.03 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    return rescaled((noisy + 1.5 * (noisy - blurred(noisy, 1.0))).clamp(0, 1)), true


def noise(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Strong noise."""
    return (image + 0.1 * torch.randn(image.shape, generator=generator)).clamp(0, 1), true


def ruler(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A ruler along the right side and a bright label, burnt in."""
    changed = image.clone()
    changed[:, 20:-20, -14:-10] = 1
    for row in range(20, image.shape[1] - 20, 20):
        changed[:, row : row + 2, -24:-10] = 1
    changed[:, 10:40, 10:90] = 1
    return changed, true


def letterbox(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Black bars on all sides, a fifth of the height and width each, as a screenshot has them."""
    edge = [int(0.2 * size) for size in image.shape[1:]]
    return F.pad(image, (edge[1], edge[1], edge[0], edge[0])), true + true.new_tensor(edge)


def low_dose(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Quantum noise, as of 60 counts in the brightest pixel, then the grey values stretched again."""
    return rescaled(torch.poisson(60 * image, generator=generator) / 60), true


def mirrored(image: Tensor, true: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Left and right exchanged."""
    return image.flip(2), torch.stack([true[:, 0], image.shape[2] - 1 - true[:, 1]], dim=1)


def wrong_spacing(image: Tensor, true: Tensor, generator: torch.Generator, *, factor: float) -> tuple[Tensor, Tensor]:
    """Prepared with so many times the right pixel size."""
    changed = F.interpolate(image[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    return changed, (true + 0.5) * factor - 0.5


HARD: dict[str, Change] = {
    "gamma 0.5": partial(gamma, power=0.5),
    "gamma 2": partial(gamma, power=2.0),
    "blur 1 mm": partial(blur, sigma_mm=1.0),
    "half resolution": partial(low_resolution, factor=2),
    "cropped by 20 %": cropped,
    "other device": other_device,
    "ruler": ruler,
    "letterbox": letterbox,
    "low dose": low_dose,
    "blur 2 mm": partial(blur, sigma_mm=2.0),
    "quarter resolution": partial(low_resolution, factor=4),
    "noise": noise,
}
WRONG: dict[str, Change] = {
    "mirrored": mirrored,
    "twice the pixel size": partial(wrong_spacing, factor=2.0),
    "half the pixel size": partial(wrong_spacing, factor=0.5),
}
