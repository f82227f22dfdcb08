"""Backbones by name, whole or as encoders alone: what every network of this package stands on."""

from collections.abc import Sequence

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from medpixcl.networks import efficientnet_lite  # noqa: F401  (registers the encoders)
from medpixcl.networks.backbones import Backbone, DynUNetLevels, FlexibleUNetLevels, UNetLevels
from medpixcl.networks.encoders import DownPath, FlexibleUNetEncoder, UNetDownPath

FROM_SCRATCH: dict[str, type[DynUNetLevels | UNetLevels]] = {"dynunet": DynUNetLevels, "unet": UNetLevels}
MOMENTUM = 0.1  # of running batch statistics


def build_backbone(
    backbone: str = "efficientnet-lite0",
    *,
    spatial_dims: int = 2,
    in_channels: int = 1,
    channels: Sequence[int] = (32, 48, 80, 112),
    pretrained: bool = False,
    norm: str | Sequence = "instance",
    encoder_only: bool = False,
) -> Backbone:
    """Build a backbone by name. Every network of the package hands these options on to it.

    The running batch statistics of an encoder alone follow by a tenth at each step, as is usual in torch. The hundredth
    of EfficientNet was chosen for ImageNet: after 150 steps a fifth of them would still be the initial values.

    Args:
        backbone: ``dynunet``, ``unet``, or an encoder registered with MONAI's ``FlexibleUNet``. ``resnet10``,
            ``resnet18`` and ``resnet34`` train, but cannot be exported: MONAI takes their shortcut out of the graph, so
            TorchScript and ``torch.export`` refuse them and a trace is silently wrong.
        spatial_dims: Number of spatial axes of the image, 2 or 3.
        in_channels: Channels of the image.
        channels: Widths, finest level first: of all levels of ``dynunet`` and ``unet``, and of the decoder of a
            registered encoder at strides 2, 4, 8, 16.
        pretrained: Start the encoder from its published weights; an error for backbones that have none.
        norm: Normalisation of ``unet`` and ``dynunet``, as MONAI names it; registered encoders have their own. After
            ``instance`` the mean of a map over its cells says little of the image, so heads on pooled maps need
            another.
        encoder_only: Leave out the up path; the maps are then those of the encoder.

    Returns:
        Module with the ``channels`` and ``strides`` of its maps; called on an image it returns the maps, finest first.

    Raises:
        ValueError: If the name is unknown or there are no weights for it.
    """
    registered = backbone in FLEXUNET_BACKBONE.register_dict
    if not registered and backbone not in FROM_SCRATCH:
        known = ", ".join([*FROM_SCRATCH, *FLEXUNET_BACKBONE.register_dict])
        raise ValueError(f"unknown backbone {backbone!r}; use one of {known}")
    if pretrained and not registered:
        raise ValueError(f"there are no pretrained weights for the backbone {backbone}; use pretrained=False")
    built: Backbone
    if registered:
        decoder = [8] * 4 if encoder_only else channels[::-1]
        built = FlexibleUNetLevels(backbone, spatial_dims, in_channels, decoder, pretrained)
    else:
        built = FROM_SCRATCH[backbone](spatial_dims, in_channels, channels, norm)
    if encoder_only:
        built = _encoder_of(built, backbone, channels)
    built.name, built.spatial_dims, built.in_channels = backbone, spatial_dims, in_channels
    return built


def _encoder_of(whole: Backbone, name: str, channels: Sequence[int]) -> Backbone:
    if isinstance(whole, FlexibleUNetLevels):
        encoder: Backbone = FlexibleUNetEncoder(whole, FLEXUNET_BACKBONE.register_dict[name]["feature_channel"])
    elif isinstance(whole, DynUNetLevels):
        encoder = DownPath(whole)
    else:
        assert isinstance(whole, UNetLevels)
        encoder = UNetDownPath(whole, channels)
    for layer in encoder.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = MOMENTUM
    return encoder
