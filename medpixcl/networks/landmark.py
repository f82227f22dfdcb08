"""A landmark network: the trunk of a pixel-embedding network with heatmaps and offsets on top."""

from typing import Any

import torch
from jaxtyping import Float
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.landmarks.heatmaps import activate_heatmaps, decode_heatmaps
from medpixcl.networks.build import build_backbone
from medpixcl.networks.configuration import SpatialConfiguration
from medpixcl.networks.finetuning import freeze_layers, hold_frozen


class LandmarkNet(nn.Module):
    """Backbone of a :class:`medpixcl.networks.PixelEmbeddingNet` with K heatmaps and K * D offsets at a fine stride.

    Every level gives a heatmap of each landmark; interpolated to the finest cells, they are summed, just as matching
    joins the similarities of all levels. The offsets come from the finest level. Weights of every pretraining of this
    package fit into the backbone by name: :func:`medpixcl.networks.load_weights` with ``strict=False``, and with
    ``required=["backbone."]`` to make sure that the whole backbone is loaded.

    Images are expected between 0 and 1; their sizes should be multiples of the coarsest stride.

    Args:
        landmarks: Number K of landmarks.
        stride: Stride of the output; the backbone must have a map of this stride.
        trained_layers: Number of backbone layers that learn, counted from the last one: None for all, 0 for none, see
            :func:`medpixcl.networks.finetuning.freeze_layers`. The others also keep their batch statistics.
        configuration_stride: Stride at which a :class:`medpixcl.networks.configuration.SpatialConfiguration` looks at
            the heatmaps, which are then multiplied by its factors; None for none.
        configuration_channels: Width of the spatial configuration.
        configuration_kernel: Kernel size of the spatial configuration; in 3D a smaller one is enough.
        **backbone: Options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        coarsest_stride: Stride of the coarsest map; image sizes should be multiples of it.

    Raises:
        ValueError: If there is no landmark, the backbone has no map at the stride or not so many layers, or the
            configuration's stride is no multiple of the output's.
    """

    def __init__(
        self,
        landmarks: int,
        *,
        stride: int = 2,
        trained_layers: int | None = None,
        configuration_stride: int | None = None,
        configuration_channels: int = 64,
        configuration_kernel: int = 11,
        **backbone: Any,
    ) -> None:
        super().__init__()
        if landmarks < 1:
            raise ValueError(f"landmarks is {landmarks}; expected the number of landmarks, at least 1")
        if configuration_stride is not None and configuration_stride % stride:
            raise ValueError(f"configuration_stride is {configuration_stride}; expected a multiple of {stride=}")
        self.backbone = build_backbone(**backbone)
        self.taps = self.backbone.keep_strides([stride, *[s for s in self.backbone.strides if s > stride]])
        freeze_layers(self.backbone, trained_layers)
        self.landmarks, self.spatial_dims, self.stride = landmarks, self.backbone.spatial_dims, stride
        self.coarsest_stride = self.backbone.strides[-1]
        conv, widths = Conv[Conv.CONV, self.spatial_dims], [self.backbone.channels[tap] for tap in self.taps]
        self.heatmap_heads = nn.ModuleList([conv(width, landmarks, 1) for width in widths])
        self.offset_head = conv(widths[0], landmarks * self.spatial_dims, 1)
        self.configuration: nn.Module | None = None
        if configuration_stride is not None:
            self.configuration = SpatialConfiguration(
                landmarks,
                self.spatial_dims,
                factor=configuration_stride // stride,
                channels=configuration_channels,
                kernel=configuration_kernel,
            )
        self.mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        self.train()

    def train(self, mode: bool = True) -> "LandmarkNet":
        """Training mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        hold_frozen(self)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """K heatmaps of logits, then the D offsets of each landmark in cells: (B, K * (1 + D), *cells)."""
        maps: list[Tensor] = self.backbone(2 * x - 1)
        finest = maps[self.taps[0]]
        logits = torch.zeros(1, device=x.device)
        for number, head in enumerate(self.heatmap_heads):
            level = head(maps[self.taps[number]]).float()
            if number > 0:
                level = F.interpolate(level, size=finest.shape[2:], mode=self.mode, align_corners=False)
            logits = logits + level
        if self.configuration is not None:
            logits = logits * self.configuration(logits)
        return torch.cat([logits, self.offset_head(finest).float()], dim=1)


def decode_output(
    output: Float[Tensor, "b c *cells"],
    landmarks: int,
    *,
    stride: int,
    radius: int = 3,
    use_offsets: bool = True,
    activation: str = "softmax",
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k"]]:
    """Decode the output of a :class:`LandmarkNet`: the mean position to which the cells around each peak point.

    Args:
        output: Output of the network, shape (B, K * (1 + D), *cells).
        landmarks: Number K of landmarks.
        stride: Stride of the network's output.
        radius: Number of cells on each side of the peak that are averaged.
        use_offsets: Average the positions that the cells' offsets point to; if False, the positions of the cells
            themselves.
        activation: ``activation`` of the loss that the network was trained with.

    Returns:
        Voxel indices in array order, not rounded, (B, K, D), and confidences (B, K): the share of the heatmap within
        the window, 0 to 1.
    """
    maps = activate_heatmaps(output[:, :landmarks].float(), activation)
    offsets = output[:, landmarks:].float().unflatten(1, (landmarks, output.ndim - 2)) if use_offsets else None
    return decode_heatmaps(maps, stride=stride, radius=radius, offsets=offsets)
