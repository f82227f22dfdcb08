"""The network of mix-up pretraining: it separates a mixture of two images and predicts the opacity of the target.

Only the abstract of the paper (Zhang et al., Mix-up Self-Supervised Learning for Contrast-agnostic Applications, ICME
2022, arXiv 2204.00901) names the two tasks, reconstruction and transparency prediction; the network is ours.
"""

from collections.abc import Sequence
from typing import Any

from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn

from medpixcl.networks.build import build_backbone

OPACITY_HEADS = ("scalar", "ordinal", "dense")


class LightDecoder(nn.Sequential):
    """From one map back to the image: at each step twice the size, a convolution, norm and ReLU.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the map.
        out_channels: Channels of the image.
        channels: Widths of the steps, coarsest first; one step for each.
        norm: Normalisation, as MONAI names it.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], norm: str | Sequence
    ) -> None:
        conv, up = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        layers: list[nn.Module] = []
        for width in channels:
            layers += [
                up(in_channels, width, 2, stride=2),
                conv(width, width, 3, padding=1, bias=False),
                get_norm_layer(norm, spatial_dims, width),
                nn.ReLU(),
            ]
            in_channels = width
        super().__init__(*layers, conv(in_channels, out_channels, 1))


class MixUpNet(nn.Module):
    """Encoder, decoder of the target (and the source) and opacity head.

    The mixture is ``opacity * target + (1 - opacity) * source``, all between 0 and 1; sizes must be multiples of the
    coarsest stride. The head is ``sigmoid(w * mean over the cells of the coarsest map + b)``. Encoder tensors are named
    as in the project's other networks, ``backbone...``, and move by :func:`medpixcl.networks.load_weights`.

    Args:
        norm: Normalisation of the decoder, and of ``unet`` and ``dynunet``.
        skips: Reconstruct through the backbone's up path, which then moves to other networks too. With skips, shallow
            maps can separate the mixture and leave the coarsest map idle, so leave them out for classification.
        decoder_channels: Widths of the light decoder, coarsest first, one for each doubling of the size; by default
            128, halved at each step, at least 16 (with skips: 16).
        reconstruct_source: Reconstruct the source too.
        opacity_head: ``scalar``; ``ordinal``, a logit for each border between bins; ``dense``, one for each cell of the
            coarsest map.
        opacity_bins: Bins of the ordinal head, equally wide.
        opacity_range: Lowest and highest opacity of the ordinal head.
        **backbone: Further options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        coarsest_stride: Stride of the coarsest map; image sizes must be multiples of it.

    Raises:
        ValueError: If a choice is unknown, the bins are fewer than 2, the range is empty, or the decoder has not one
            width for each step.
    """

    def __init__(
        self,
        *,
        norm: str | Sequence = "batch",
        skips: bool = False,
        decoder_channels: Sequence[int] | None = None,
        reconstruct_source: bool = False,
        opacity_head: str = "scalar",
        opacity_bins: int = 10,
        opacity_range: Sequence[float | int] = (0.0, 1.0),
        **backbone: Any,
    ) -> None:
        super().__init__()
        self.low, self.high = _checked(opacity_head, opacity_bins, opacity_range)
        self.backbone = build_backbone(encoder_only=not skips, norm=norm, **backbone)
        start = 0 if skips else -1
        steps = self.backbone.strides[start].bit_length() - 1
        widths = _decoder_widths(decoder_channels, steps, 16 if skips else 128)
        images = 2 if reconstruct_source else 1
        dims, in_channels = self.backbone.spatial_dims, self.backbone.in_channels
        self.decoder = LightDecoder(dims, self.backbone.channels[start], images * in_channels, widths, norm)
        logits = opacity_bins - 1 if opacity_head == "ordinal" else 1
        self.opacity_head = Conv[Conv.CONV, dims](self.backbone.channels[-1], logits, 1)
        self.start, self.in_channels, self.both = start, in_channels, reconstruct_source
        self.dense, self.ordinal = opacity_head == "dense", opacity_head == "ordinal"
        self.coarsest_stride = self.backbone.strides[-1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Take mixtures (B, C, *spatial) apart.

        Returns:
            In float32: ``target``, and ``source`` where asked for, shape (B, C, *spatial); ``opacity``, shape (B, 1) or
            (B, 1, *cells); ``opacity_logits``, of the same shape, for the ordinal head (B, bins - 1).
        """
        maps: list[Tensor] = self.backbone(2 * x - 1)
        images = self.decoder(maps[self.start]).float()
        # The mean of a linear map is the linear map of the mean, so one head serves the pooled and the dense form.
        logits = self.opacity_head(maps[-1]).float()
        if not self.dense:
            logits = logits.flatten(2).mean(2)
        opacity = logits.sigmoid()
        if self.ordinal:
            share = (opacity.sum(1, keepdim=True) + 0.5) / (opacity.shape[1] + 1)
            opacity = self.low + (self.high - self.low) * share
        out = {"target": images[:, : self.in_channels], "opacity": opacity, "opacity_logits": logits}
        if self.both:
            out["source"] = images[:, self.in_channels :]
        return out


class DenseOpacityNet(nn.Module):
    """Encoder and decoder that predict for every voxel which of K opacities the target has there.

    The baseline after Volume Fusion (Wang et al., arXiv 2306.16925), on the encoder and decoder of :class:`MixUpNet`.

    Args:
        classes: Number K of opacities.
        norm: Normalisation of the decoder, and of ``unet`` and ``dynunet``.
        **backbone: Further options of :func:`medpixcl.networks.build_backbone`.
    """

    def __init__(self, classes: int = 5, *, norm: str | Sequence = "batch", **backbone: Any) -> None:
        super().__init__()
        self.backbone = build_backbone(encoder_only=True, norm=norm, **backbone)
        widths = _decoder_widths(None, self.backbone.strides[-1].bit_length() - 1, 128)
        self.decoder = LightDecoder(self.backbone.spatial_dims, self.backbone.channels[-1], classes, widths, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, *spatial) of mixtures (B, C, *spatial) between 0 and 1, in float32."""
        maps: list[Tensor] = self.backbone(2 * x - 1)
        return self.decoder(maps[-1]).float()


def _checked(head: str, bins: int, bounds: Sequence[float | int]) -> tuple[float, float]:
    if head not in OPACITY_HEADS:
        raise ValueError(f"opacity_head is {head!r}; expected 'scalar', 'ordinal' or 'dense'")
    if bins < 2:
        raise ValueError(f"opacity_bins is {bins}; expected at least 2 bins")
    if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= 1:
        raise ValueError(f"opacity_range is {list(bounds)}; expected the lowest and the highest opacity within 0 .. 1")
    return float(bounds[0]), float(bounds[1])


def _decoder_widths(given: Sequence[int] | None, steps: int, first: int) -> list[int]:
    if given is None:
        return [max(first >> step, 16) for step in range(steps)]
    if len(given) != steps:
        raise ValueError(
            f"decoder_channels has {len(given)} widths; the decoder doubles the size {steps} times and needs {steps}"
        )
    return list(given)
