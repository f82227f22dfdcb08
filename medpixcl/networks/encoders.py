"""The encoders of the backbones without their up path; tensors keep the names that they have in the backbone."""

from collections.abc import Sequence

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn

from medpixcl.networks.backbones import Backbone, DynUNetLevels, FlexibleUNetLevels, UNetLevels, build_backbone

# MONAI's EfficientNet keeps the layers of its classifier, which nothing calls here.
UNUSED = ("_conv_head", "_bn1", "_fc")
MOMENTUM = 0.1


class FlexibleUNetEncoder(Backbone):
    """The encoder of a :class:`FlexibleUNetLevels`: its maps at strides 2, 4, 8, 16, 32.

    Args:
        backbone: Where the encoder is taken from.
        channels: Of its maps.
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
    """The down path of a :class:`DynUNetLevels`, its bottom the last layer of it.

    Args:
        backbone: Where the layers are taken from.
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
        backbone: Where the layers are taken from.
        channels: Of the network's layers, finest first.
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


def build_encoder(
    name: str,
    *,
    spatial_dims: int,
    in_channels: int,
    channels: Sequence[int],
    pretrained: bool = False,
    norm: str | Sequence = "batch",
) -> Backbone:
    """The encoder of a backbone by name.

    Args:
        name: See :func:`medpixcl.networks.build_backbone`.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Widths of ``dynunet`` and ``unet``, finest first; the registered encoders have their own.
        pretrained: Published encoder weights; only for encoders that have them.
        norm: Normalisation of ``unet`` and ``dynunet``. With ``instance`` the mean of a map over its cells says little
            of the image, so a head on pooled maps starves.

    The running batch statistics follow by a tenth at each step, as is usual in torch. EfficientNet's own hundredth was
    chosen for ImageNet: after 150 steps a fifth of them would still be the values of the start.

    Returns:
        Module with ``channels`` and ``strides`` of its maps; called on an image it returns the maps, finest first.

    Raises:
        ValueError: If the name is unknown or there are no weights for it.
    """
    encoder = _encoder(name, spatial_dims, in_channels, channels, pretrained, norm)
    for layer in encoder.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = MOMENTUM
    return encoder


def _encoder(
    name: str, spatial_dims: int, in_channels: int, channels: Sequence[int], pretrained: bool, norm: str | Sequence
) -> Backbone:
    registered = name in FLEXUNET_BACKBONE.register_dict
    backbone = build_backbone(
        name,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        channels=[8, 8, 8, 8] if registered else channels,
        pretrained=pretrained,
        norm=norm,
    )
    if isinstance(backbone, FlexibleUNetLevels):
        return FlexibleUNetEncoder(backbone, FLEXUNET_BACKBONE.register_dict[name]["feature_channel"])
    if isinstance(backbone, DynUNetLevels):
        return DownPath(backbone)
    assert isinstance(backbone, UNetLevels)
    return UNetDownPath(backbone, channels)


def encoder_layers(backbone: nn.Module) -> list[nn.Module]:
    """Layers of an encoder that have weights, from the image to the coarsest map; lists of layers are taken apart."""
    root = backbone.encoder if isinstance(backbone, FlexibleUNetEncoder) else backbone
    layers: list[nn.Module] = []
    for name, child in root.named_children():
        if name in UNUSED:
            continue
        layers += list(child) if isinstance(child, nn.ModuleList | nn.Sequential) else [child]
    return [layer for layer in layers if any(True for _ in layer.parameters())]
