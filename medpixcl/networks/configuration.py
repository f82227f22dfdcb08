"""Spatial configuration: where the other landmarks expect each one."""

from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F


class SpatialConfiguration(nn.Module):
    """Factors between -1 and 1 for the heatmaps of K landmarks, from a coarse look at all of them together.

    Maps of local appearance may be high at several similar places. They are averaged over blocks of cells, go through
    convolutions with large kernels and are interpolated back to their size. The product of both is high where the
    appearance and the arrangement agree.

    Args:
        landmarks: Number K of maps.
        spatial_dims: 2 or 3.
        factor: Number of cells of a block along each axis.
        channels: Width of the three inner convolutions.
        kernel: Number of blocks along each axis that a convolution sees; an odd number.

    Reference: Payer et al., Integrating Spatial Configuration into Heatmap Regression Based CNNs for Landmark
    Localization, Medical Image Analysis 54 (2019), section 3. Ours: it works on the logits of any backbone.

    Raises:
        ValueError: If the kernel is even.
    """

    def __init__(self, landmarks: int, spatial_dims: int, *, factor: int, channels: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel of the spatial configuration is {kernel}; expected an odd number of blocks")
        conv = Conv[Conv.CONV, spatial_dims]
        widths = [landmarks, channels, channels, channels]
        self.inner = nn.ModuleList([conv(*pair, kernel, padding=kernel // 2) for pair in pairwise(widths)])
        self.outer = conv(channels, landmarks, kernel, padding=kernel // 2)
        self.factor = factor
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"

    def forward(self, local: Tensor) -> Tensor:
        """Factors of the shape of the maps of local appearance, (B, K, *cells)."""
        if local.dim() == 4:
            x = F.avg_pool2d(local, self.factor, ceil_mode=True, count_include_pad=False)
        else:
            x = F.avg_pool3d(local, self.factor, ceil_mode=True, count_include_pad=False)
        for layer in self.inner:
            x = F.leaky_relu(layer(x), 0.1)
        x = F.interpolate(self.outer(x).float(), size=local.shape[2:], mode=self.mode, align_corners=False)
        return torch.tanh(x)
