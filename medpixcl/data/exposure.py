"""Exposure and development of a radiograph, from line integrals through a CT to a grey image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from monai.networks.layers import GaussianFilter
from torch import Tensor

DETAIL_MM = 15.0
"""Width (sigma) of the blur that splits a radiograph into base and detail."""


@dataclass(frozen=True)
class Exposure:
    """Exposure and development settings of a radiograph; the defaults are the template's.

    Args:
        bone: Factor on what a voxel has above 150 HU: calcium weighs more at a lower tube voltage.
        photons: Photons per pixel in air; fewer make more noise.
        detail: Gain of structures finer than ``DETAIL_MM``, as in the processing of digital radiographs.
        gamma: Exponent of the grey curve.
        window: Lowest and highest percentile of the line integral that get different grey levels.
    """

    bone: float = 1.5
    photons: float = 1e6
    detail: float = 2.0
    gamma: float = 1.0
    window: tuple[float, float] = (1.0, 99.5)


def harden(hu: Float[Tensor, "*s"], bone: float) -> Float[Tensor, "*s"]:
    """HU as seen at another tube voltage: what exceeds 150 HU, bone and contrast agent, is scaled by ``bone``."""
    return hu + (bone - 1) * (hu - 150).clamp_min(0)


def develop(
    integral: Float[Tensor, "1 1 h w"], exposure: Exposure, pixel_mm: float, *, seed: Sequence[int] = (0,)
) -> UInt8[Tensor, "1 1 h w"]:
    """Turn a line integral into a grey picture: photon noise, detail gain, window, gamma."""
    noise = torch.from_numpy(np.random.default_rng(list(seed)).standard_normal(integral.shape)).to(integral)
    film = integral + noise * (integral / 2).exp() / exposure.photons**0.5
    blur = GaussianFilter(2, DETAIL_MM / pixel_mm)
    base = blur(film) / blur(torch.ones_like(film))  # the filter pads with zeros; the ratio undoes it at the borders
    film = (base + exposure.detail * (film - base)).clamp_min(0)
    low, high = film.quantile(film.new_tensor(exposure.window) / 100)
    grey = ((film - low) / (high - low)).clamp(0, 1) ** exposure.gamma
    return (grey * 255).round().to(torch.uint8)
