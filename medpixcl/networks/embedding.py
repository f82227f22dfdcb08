"""The network that gives every pixel an embedding at several scales, and its two-view form for training."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.networks.build import build_backbone
from medpixcl.networks.precision import Precision, keep_gradients_right


def dense_embedding(levels: list[Tensor]) -> Tensor:
    """Join levels of unit vectors in one map at the finest scale.

    Coarser levels are interpolated and renormalised, all are joined and divided by the square root of their number:
    the vectors have length one, and their scalar product is the mean of the levels' cosines.

    Args:
        levels: Maps of shape (B, E, *cells), finest first.

    Returns:
        Map of shape (B, E * number of levels, *cells of the finest level).
    """
    shape = levels[0].shape[2:]
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    joined = [levels[0]]
    for level in levels[1:]:
        joined.append(F.normalize(F.interpolate(level, size=shape, mode=mode, align_corners=False), dim=1))
    return torch.cat(joined, dim=1) / len(levels) ** 0.5


class LevelsNet(nn.Module):
    """A network that embeds every pixel at several levels.

    Attributes:
        strides: Strides of the levels, finest first.
        coarsest_stride: Stride of the coarsest map of the network, which may lie below its levels; image sizes should
            be multiples of it.
    """

    strides: list[int]
    coarsest_stride: int

    def levels(self, x: Tensor) -> list[Tensor]:
        """Unit vectors at every level, shapes (B, E, *cells), finest first, of an image (B, C, *spatial) in 0 .. 1."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """All levels in one map at the finest stride, shape (B, E * levels, *cells): see :func:`dense_embedding`."""
        return dense_embedding(self.levels(x))


class PixelEmbeddingNet(LevelsNet):
    """Backbone with one projection head (a 1 x 1 convolution) per level; every cell gets a vector of length one.

    Images are expected between 0 and 1 and are mapped to -1 .. 1, the range of the ImageNet weights. Spatial sizes
    should be multiples of the coarsest stride.

    Args:
        embedding_size: Length E of a level's vectors.
        strides: Strides of the maps that get a head, finest first; None takes all maps of the backbone.
        **backbone: Options of :func:`medpixcl.networks.build_backbone`.

    Raises:
        ValueError: If the backbone has no map at a stride asked for.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 64,
        strides: Sequence[int] | None = None,
        **backbone: Any,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(**backbone)
        self.strides = list(self.backbone.strides if strides is None else strides)
        self.coarsest_stride = self.backbone.strides[-1]
        self.taps = self.backbone.keep_strides(self.strides)
        conv = Conv[Conv.CONV, self.backbone.spatial_dims]
        self.heads = nn.ModuleList([conv(self.backbone.channels[tap], embedding_size, 1) for tap in self.taps])

    def levels(self, x: Tensor) -> list[Tensor]:
        """Unit vectors at every level, shapes (B, E, *cells), finest first, of an image (B, C, *spatial)."""
        maps: list[Tensor] = self.backbone(2 * x - 1)
        out: list[Tensor] = []
        for number, head in enumerate(self.heads):
            out.append(F.normalize(head(maps[self.taps[number]]).float(), dim=1))
        return out


class BackboneNet(LevelsNet):
    """A backbone without heads, whose maps are the embeddings; PixPro trains and keeps it.

    With ``encoder_only`` and ``pretrained`` it is the baseline that a pretraining has to beat. Images are expected
    between 0 and 1. Its weights fit into the backbone of a :class:`medpixcl.networks.PixelEmbeddingNet` or
    :class:`medpixcl.networks.LandmarkNet` by name.

    Args:
        strides: Strides of the maps to use, finest first; None takes all maps of the backbone.
        **backbone: Options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        widths: Channels of the maps at the strides.

    Raises:
        ValueError: If the backbone has no map at a stride asked for.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] | None = None,
        **backbone: Any,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(**backbone)
        self.coarsest_stride = self.backbone.strides[-1]
        self.strides = list(self.backbone.strides if strides is None else strides)
        self.taps = self.backbone.keep_strides(self.strides)
        self.widths = [self.backbone.channels[tap] for tap in self.taps]

    def maps(self, x: Tensor) -> list[Tensor]:
        """Maps at the strides, not normalised, of an image (B, C, *spatial)."""
        maps: list[Tensor] = self.backbone(2 * x - 1)
        out: list[Tensor] = []
        for tap in self.taps:
            out.append(maps[tap])
        return out

    def levels(self, x: Tensor) -> list[Tensor]:
        """Unit vectors at every level, shapes (B, C, *cells), finest first, of an image (B, C, *spatial)."""
        out: list[Tensor] = []
        for level in self.maps(x):
            out.append(F.normalize(level.float(), dim=1))
        return out


class SiameseNet(nn.Module):
    """Runs one embedding network on two views; the module that ``DistributedDataParallel`` wraps in training.

    Args:
        network: The embedding network.
        bfloat16: Convolutions in bfloat16: true, false, or ``"auto"`` where the device computes them faster; weights,
            norms and embeddings stay in float32.

    Attributes:
        precision: The :class:`medpixcl.networks.precision.Precision`, which a resumed training restores.
    """

    network: LevelsNet

    def __init__(self, network: LevelsNet, bfloat16: bool | str = "auto") -> None:
        super().__init__()
        self.network = network
        self.precision = Precision(bfloat16)
        if bfloat16:
            keep_gradients_right(network)

    def forward(self, query: Tensor, anchor: Tensor) -> list[list[Tensor]]:
        """Levels of the query view and of the anchor view.

        Views of one shape go through the network together, so that batch statistics are shared.
        """
        with self.precision.autocast(query.device):
            if query.shape != anchor.shape:
                return [self.network.levels(query), self.network.levels(anchor)]
            pairs = [level.chunk(2) for level in self.network.levels(torch.cat([query, anchor]))]
        return [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
