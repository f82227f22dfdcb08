"""Gaussian blur that does not darken the border."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor


def gaussian_blur(image: Float[Tensor, " c *s"], sigma: Sequence[float]) -> Float[Tensor, " c *s"]:
    """Blur an image that continues with its border values, so that a constant image stays constant.

    MONAI's ``GaussianFilter`` takes zeros outside: a border pixel would lose half of its value, and air (-1000 HU)
    would become brighter there.

    Args:
        image: Image to blur, shape (C, *spatial).
        sigma: Standard deviation along each axis in pixels; 0 leaves an axis alone.

    Example:
        >>> gaussian_blur(torch.full((1, 2, 2), 3.0), [1.0, 0.0]).round(decimals=4)
        tensor([[[3., 3.],
                 [3., 3.]]])
    """
    kernels = [gaussian_1d(torch.tensor(s), normalize=True) if s > 0 else torch.ones(1) for s in sigma]
    return separable_filtering(image[None], kernels, mode="replicate")[0]
