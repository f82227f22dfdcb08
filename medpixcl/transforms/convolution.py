"""Contrast of another scanner or sequence, made up by random convolutions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LAYERS = 4
CHANNELS = 2  # between the layers
KERNEL_SIZES = (1, 3)


def random_contrast(image: Float[Tensor, " c *s"], generator: torch.Generator) -> Float[Tensor, " c *s"]:
    """Pass an image through a small network of random weights: grey levels change places, shapes stay.

    Each of four layers convolves by a kernel of 1 or 3 pixels, adds a constant and, but for the last, takes the leaky
    ReLU; weights and constants come from the standard normal distribution. The border goes on outside. The result takes
    mean and standard deviation of the image, where the paper takes its norm: that keeps it near the range of the image.

    Args:
        image: Image, shape (C, *spatial) of two or three axes.
        generator: Source of the random numbers, on the CPU.

    Reference: global intensity non-linear augmentation, Ouyang et al. 2022, arXiv 2111.12525, after the random
    convolutions of Xu et al. 2021, arXiv 2007.13003.
    """
    values = image[None]
    for layer in range(LAYERS):
        wanted = len(image) if layer == LAYERS - 1 else CHANNELS
        values = _random_convolution(values, wanted, generator)
        if layer < LAYERS - 1:
            values = F.leaky_relu(values)
    values = (values[0] - values.mean()) / values.std().clamp(min=1e-6)
    return values * image.std() + image.mean()


def _random_convolution(
    values: Float[Tensor, "1 c *s"], channels: int, generator: torch.Generator
) -> Float[Tensor, "1 c2 *s"]:
    """Convolve by a kernel of random size and weights, and add a random constant to each channel."""
    dims = values.ndim - 2
    size = KERNEL_SIZES[int(torch.randint(len(KERNEL_SIZES), (1,), generator=generator))]
    weights = torch.randn(channels, values.shape[1], *[size] * dims, generator=generator).to(values)
    constants = torch.randn(channels, generator=generator).to(values)
    padded = F.pad(values, [size // 2] * (2 * dims), mode="replicate")
    return (F.conv2d if dims == 2 else F.conv3d)(padded, weights, constants)
