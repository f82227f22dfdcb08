"""Encoders of the backbones without their up path; tensors keep the names that they have in the backbone."""

from collections.abc import Sequence

from torch import Tensor, nn

from medpixcl.networks.backbones import Backbone, DynUNetLevels, FlexibleUNetLevels, UNetLevels

# MONAI's EfficientNet keeps the layers of its classifier, which nothing calls here.
UNUSED = ("_conv_head", "_bn1", "_fc")


class FlexibleUNetEncoder(Backbone):
    """The encoder of a :class:`FlexibleUNetLevels`: its maps at strides 2, 4, 8, 16, 32.

    Args:
        backbone: Backbone whose encoder is taken.
        channels: Channels of the encoder's maps, finest first.
    """

    up_path = None

    def __init__(self, backbone: FlexibleUNetLevels, channels: Sequence[int]) -> None:
        super().__init__()
        self.encoder = backbone.encoder
        self.channels = list(channels)
        self.strides = [2**level for level in range(1, len(channels) + 1)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first."""
        maps: list[Tensor] = self.encoder(x)
        return maps


class DownPath(Backbone):
    """The down path of a :class:`DynUNetLevels`; its last layer is the bottom.

    Args:
        backbone: Backbone whose layers are taken.
    """

    up_path = None

    def __init__(self, backbone: DynUNetLevels) -> None:
        super().__init__()
        self.down = backbone.down
        self.channels, self.strides = list(backbone.channels), list(backbone.strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first."""
        maps: list[Tensor] = []
        for block in self.down:
            x = block(x)
            maps.append(x)
        return maps


class UNetDownPath(Backbone):
    """The down path of a :class:`UNetLevels` and its bottom layer, which keeps the size.

    Args:
        backbone: Backbone whose layers are taken.
        channels: Channels of the network's layers, finest first.
    """

    up_path = None

    def __init__(self, backbone: UNetLevels, channels: Sequence[int]) -> None:
        super().__init__()
        self.down, self.bottom = backbone.down, backbone.bottom
        self.channels, self.strides = [*channels[:-2], channels[-1]], list(backbone.strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the image (B, C, *spatial), finest first; the coarsest is the bottom's."""
        maps: list[Tensor] = []
        for block in self.down:
            x = block(x)
            maps.append(x)
        maps[-1] = self.bottom(x)
        return maps


def encoder_layers(backbone: nn.Module) -> list[nn.Module]:
    """List the layers of an encoder that have weights, from the image to the coarsest map; layer lists are expanded."""
    root = backbone.encoder if isinstance(backbone, FlexibleUNetEncoder) else backbone
    layers: list[nn.Module] = []
    for name, child in root.named_children():
        if name in UNUSED:
            continue
        layers += list(child) if isinstance(child, nn.ModuleList | nn.Sequential) else [child]
    return [layer for layer in layers if any(True for _ in layer.parameters())]
