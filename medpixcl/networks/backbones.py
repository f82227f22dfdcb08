"""MONAI networks as backbones that return a feature map at every scale, finest first."""

from collections.abc import Sequence

import torch
from monai.networks.nets import DynUNet, FlexibleUNet, UNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn
from torch.nn import functional as F


class Backbone(nn.Module):
    """A network whose ``forward`` returns a list of maps, finest first.

    Attributes:
        name: Name under which :func:`medpixcl.networks.build_backbone` knows it.
        spatial_dims: Number of spatial axes of the image, 2 or 3.
        in_channels: Channels of the image.
        channels: Channels of each map.
        strides: Stride of each map.
    """

    name: str
    spatial_dims: int
    in_channels: int
    channels: list[int]
    strides: list[int]
    up_path: str | None = "up"  # name of the list of layers from the coarsest map to the finest; an encoder has none

    def drop_finest(self, number: int) -> None:
        """Remove the finest maps with the layers that make only them, because no loss would ever reach these layers.

        An encoder stays whole: its finest maps lead to the coarser ones.
        """
        if self.up_path is None:
            return
        layers = getattr(self, self.up_path)
        setattr(self, self.up_path, layers[: len(layers) - number])
        self.channels, self.strides = self.channels[number:], self.strides[number:]

    def keep_strides(self, strides: Sequence[int]) -> list[int]:
        """Remove the layers that only make maps finer than these strides; return the index of the map at each stride.

        Raises:
            ValueError: If the backbone has no map at one of the strides.
        """
        if not set(strides) <= set(self.strides):
            raise ValueError(
                f"the backbone {self.name} has maps at strides {self.strides}, found strides={list(strides)}"
            )
        self.drop_finest(self.strides.index(min(strides)))
        return [self.strides.index(stride) for stride in strides]


class FlexibleUNetLevels(Backbone):
    """Encoder of MONAI's ``FlexibleUNet`` and its decoder without the last block: maps at strides 2, 4, 8, 16, 32.

    Args:
        backbone: Name of a registered encoder (``efficientnet-lite0``, ``efficientnet-b0``, ``resnet18``, ...).
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        decoder_channels: Numbers of channels of the decoder's maps at strides 16, 8, 4, 2.
        pretrained: Start the encoder from its published weights.
    """

    up_path = "decoder"

    def __init__(
        self, backbone: str, spatial_dims: int, in_channels: int, decoder_channels: Sequence[int], pretrained: bool
    ) -> None:
        super().__init__()
        unet = FlexibleUNet(
            in_channels=in_channels,
            out_channels=1,
            backbone=backbone,
            pretrained=pretrained,
            decoder_channels=(*decoder_channels, 1),
            spatial_dims=spatial_dims,
            interp_mode="linear",
        )
        self.encoder = unet.encoder
        self.decoder = unet.decoder.blocks[: len(decoder_channels)]
        encoder_channels = FLEXUNET_BACKBONE.register_dict[backbone]["feature_channel"]
        self.channels = [*reversed(decoder_channels), encoder_channels[-1]]
        self.strides = [2**level for level in range(1, len(self.channels) + 1)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first."""
        skips = self.encoder(x)
        maps: list[Tensor] = [skips[-1]]
        for number, block in enumerate(self.decoder):
            maps.append(block(maps[-1], skips[-2 - number]))
        return maps[::-1]


class DynUNetLevels(Backbone):
    """MONAI's ``DynUNet`` from scratch: the maps of its up path at strides 1, 2, 4, ...

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Channels of the maps, finest first; as many levels as entries, at least 3.
        norm: Normalisation, as MONAI names it (``instance`` and ``group`` keep no statistics over the batch).
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int], norm: str | Sequence) -> None:
        super().__init__()
        kernels, strides = [3] * len(channels), [1] + [2] * (len(channels) - 1)
        net = DynUNet(
            spatial_dims, in_channels, 1, kernels, strides, strides[1:], filters=list(channels), norm_name=norm
        )
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up = net.upsamples
        self.channels = list(channels)
        self.strides = [2**level for level in range(len(channels))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        maps: list[Tensor] = [x]
        for number, block in enumerate(self.up):
            maps.append(block(maps[-1], skips[-2 - number]))
        return maps[::-1]


class UNetLevels(Backbone):
    """MONAI's ``UNet`` from scratch: the joined maps (skip and up path) before every up layer, at strides 2, 4, ...

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Channels of the network's layers, finest first; one level fewer than entries, at least 2.
        norm: Normalisation, as MONAI names it.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int], norm: str | Sequence) -> None:
        super().__init__()
        strides = [2] * (len(channels) - 1)
        # The last up layer is not used; its width only has to suit the norm.
        net = UNet(spatial_dims, in_channels, channels[0], list(channels), strides, num_res_units=1, norm=norm)
        down, up = [], []
        layer = net.model
        while isinstance(layer, nn.Sequential):  # down, skip connection round the next layer, up; the bottom is no such
            down.append(layer[0])
            up.append(layer[2])
            layer = layer[1].submodule
        self.down = nn.ModuleList(down)
        self.bottom = layer
        self.up = nn.ModuleList(up[:0:-1])
        self.channels = [2 * c for c in channels[:-2]] + [channels[-2] + channels[-1]]
        self.strides = [2**level for level in range(1, len(channels))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        maps: list[Tensor] = [torch.cat([x, self.bottom(x)], dim=1)]
        for number, block in enumerate(self.up):
            maps.append(torch.cat([skips[-2 - number], block(maps[-1])], dim=1))
        return maps[::-1]


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Pad an image (B, C, *spatial) with zeros at the end of every axis to a multiple of the stride.

    Example:
        >>> pad_to_stride(torch.ones(1, 1, 3, 8), 4).shape
        torch.Size([1, 1, 4, 8])
    """
    padding: list[int] = []
    for axis in range(image.dim() - 1, 1, -1):
        padding += [0, (stride - image.shape[axis] % stride) % stride]
    return F.pad(image, padding)
