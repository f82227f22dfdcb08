"""Segmentation on a pretrained backbone: a dense linear probe of its maps, or a light decoder over them."""

from collections.abc import Sequence
from typing import Any

from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.networks.backbones import pad_to_stride
from medpixcl.networks.build import build_backbone
from medpixcl.networks.finetuning import hold_frozen

HEADS = ("linear", "decoder")


class SegmentationNet(nn.Module):
    """A backbone as in :class:`medpixcl.networks.BackboneNet`, and one logit per class and pixel of the image.

    Weights of every pretraining of this package fit into ``backbone`` by name
    (:func:`medpixcl.networks.weights.transfer_weights` with ``required=["backbone."]``). Images are expected between 0
    and 1 and may have any size: they are padded with zeros at their end to a multiple of the coarsest stride, and the
    logits are cropped back.

    Args:
        classes: Number K of logits. For exclusive classes (softmax), the background is one of them.
        strides: Strides of the maps that the head sees, finest first; None takes all maps of the backbone.
        head: ``linear`` for a :class:`LinearProbe`, ``decoder`` for a :class:`FusionDecoder`.
        decoder_channels: Width of the decoder.
        frozen: Freeze the backbone: it gets no gradient and keeps its statistics in every mode of the network.
        **backbone: Options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        coarsest_stride: Stride of the coarsest map; images are padded to a multiple of it.

    Raises:
        ValueError: If there is no class, no such head, or the backbone has no map at a stride asked for.
    """

    def __init__(
        self,
        classes: int,
        *,
        strides: Sequence[int] | None = None,
        head: str = "linear",
        decoder_channels: int = 32,
        frozen: bool = False,
        **backbone: Any,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes is {classes}; expected the number of logits, at least 1")
        if head not in HEADS:
            raise ValueError(f"head is {head!r}; expected one of {', '.join(HEADS)}")
        self.backbone = build_backbone(**backbone)
        self.strides = list(self.backbone.strides if strides is None else strides)
        self.taps = self.backbone.keep_strides(self.strides)
        self.coarsest_stride = self.backbone.strides[-1]
        widths = [self.backbone.channels[tap] for tap in self.taps]
        self.head: nn.Module = (
            LinearProbe(self.backbone.spatial_dims, widths, classes, frozen)
            if head == "linear"
            else FusionDecoder(self.backbone.spatial_dims, widths, classes, decoder_channels)
        )
        if frozen:
            self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "SegmentationNet":
        """Training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        hold_frozen(self)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, *spatial), float32, of images (B, C, *spatial)."""
        padded = pad_to_stride(x, self.coarsest_stride)
        whole: list[int] = [padded.shape[axis] for axis in range(2, x.dim())]
        maps: list[Tensor] = self.backbone(2 * padded - 1)
        taken: list[Tensor] = []
        for tap in self.taps:
            taken.append(maps[tap])
        logits = self.head(taken, whole)
        for axis in range(2, x.dim()):
            logits = logits.narrow(axis, 0, x.shape[axis])
        return logits


class LinearProbe(nn.Module):
    """Logits that are linear in the maps: without a hidden layer they show what the maps already hold.

    Each map is normalised by its batch statistics (in evaluation the running ones; the normalisation learns nothing),
    goes through a 1 x 1 convolution and is interpolated linearly to the image. The logits are the sum over the maps.

    Args:
        spatial_dims: 2 or 3.
        widths: Numbers of channels of the maps.
        classes: Number K of logits.
        frozen: Set it when the maps do not change: their running statistics are then those of all batches, not of the
            last.
    """

    def __init__(self, spatial_dims: int, widths: Sequence[int], classes: int, frozen: bool = False) -> None:
        super().__init__()
        # The maps of an untrained encoder are as small as 1e-8.
        statistics = {"affine": False, "eps": 1e-20, "momentum": None if frozen else 0.1}
        norm, conv = Norm[Norm.BATCH, spatial_dims], Conv[Conv.CONV, spatial_dims]
        self.norms = nn.ModuleList([norm(width, **statistics) for width in widths])
        self.weights = nn.ModuleList([conv(width, classes, 1) for width in widths])
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"

    def forward(self, maps: list[Tensor], shape: list[int]) -> Tensor:
        """Logits (B, K, *shape) of maps (B, C, *cells) of an image of spatial shape ``shape``."""
        levels: list[Tensor] = []
        for number, (norm, weight) in enumerate(zip(self.norms, self.weights)):  # noqa: B905  (TorchScript)
            level = weight(norm(maps[number].float())).float()
            levels.append(F.interpolate(level, size=shape, mode=self.mode, align_corners=False))
        logits = levels[0]
        for level in levels[1:]:
            logits = logits + level
        return logits


class FusionDecoder(nn.Module):
    """A decoder of two layers: every map is brought to one width and to the finest cells, and their sum is convolved.

    Args:
        spatial_dims: 2 or 3.
        widths: Numbers of channels of the maps, finest first.
        classes: Number K of logits.
        channels: Width of the decoder.
    """

    def __init__(self, spatial_dims: int, widths: Sequence[int], classes: int, channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            [Convolution(spatial_dims, width, channels, kernel_size=1, act="RELU") for width in widths]
        )
        self.joined = Convolution(spatial_dims, channels, channels, kernel_size=3, act="RELU")
        self.logits = Conv[Conv.CONV, spatial_dims](channels, classes, 1)
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"

    def forward(self, maps: list[Tensor], shape: list[int]) -> Tensor:
        """Logits (B, K, *shape) of maps (B, C, *cells), finest first, of an image of spatial shape ``shape``."""
        levels: list[Tensor] = []
        for number, layer in enumerate(self.lateral):
            level = layer(maps[number])
            if number > 0:
                level = F.interpolate(level, size=levels[0].shape[2:], mode=self.mode, align_corners=False)
            levels.append(level)
        total = levels[0]
        for level in levels[1:]:
            total = total + level
        logits = self.logits(self.joined(total)).float()
        return F.interpolate(logits, size=shape, mode=self.mode, align_corners=False)
