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

    A landmark's heatmap is the sum of what every level says of it, interpolated to the finest cells, as in matching the
    similarities of all levels are joined. The offsets come from the finest level. Weights of every pretraining of this
    package fit into the backbone by name (:func:`medpixcl.networks.load_weights` with ``strict=False``, and
    ``required=["backbone."]`` to be sure that nothing of it is left out).

    Images are expected between 0 and 1; their sizes should be multiples of the coarsest stride.

    Args:
        landmarks: Number K of landmarks.
        stride: Of the output; the backbone must have a map there.
        trained_layers: Layers of the backbone that learn, counted from the last one, see
            :func:`medpixcl.networks.finetuning.freeze_layers`: None all, 0 none, a number in between. The others keep
            their batch statistics, too.
        configuration_stride: Stride at which a :class:`medpixcl.networks.configuration.SpatialConfiguration` looks at
            the heatmaps, whose factors they are then multiplied with; None for none.
        configuration_channels: Its width.
        configuration_kernel: Its kernel; in 3D a smaller one is enough.
        **backbone: Options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        coarsest_stride: What image sizes should be a multiple of.

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
    """Landmarks of a :class:`LandmarkNet`'s output: where the cells around each peak point to, on average.

    Args:
        output: Shape (B, K * (1 + D), *cells).
        landmarks: Number K.
        stride: Of the network.
        radius: Cells to either side of the peak that are averaged.
        use_offsets: Off: the mean of the cells themselves.
        activation: ``activation`` of the loss that the network was trained with.

    Returns:
        Voxel indices in array order, not rounded, (B, K, D), and confidences (B, K): the share of the heatmap within
        the window, 0 to 1.
    """
    maps = activate_heatmaps(output[:, :landmarks].float(), activation)
    offsets = output[:, landmarks:].float().unflatten(1, (landmarks, output.ndim - 2)) if use_offsets else None
    return decode_heatmaps(maps, stride=stride, radius=radius, offsets=offsets)
