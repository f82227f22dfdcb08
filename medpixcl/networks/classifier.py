"""A classifier of whole images: a pretrained encoder, the mean of its coarsest map and one linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medpixcl.networks.build import build_backbone
from medpixcl.networks.finetuning import freeze_layers, hold_frozen


class EncoderNet(nn.Module):
    """One vector for a whole image: the mean of the encoder's coarsest map over its cells.

    Images are expected between 0 and 1; sizes should be multiples of the coarsest stride. The encoder's tensors are
    named as in the other networks (``backbone...``), so weights of a :class:`medpixcl.networks.mixup.MixUpNet`
    or a :class:`medpixcl.networks.PixelEmbeddingNet` fit by :func:`medpixcl.networks.load_weights`.

    Args:
        norm: Normalisation of ``unet`` and ``dynunet``; take that of the weights to load.
        **backbone: Further options of :func:`medpixcl.networks.build_backbone`.

    Attributes:
        coarsest_stride: Stride of the coarsest map; image sizes should be multiples of it.
        embedding_size: Length of the vector.
    """

    def __init__(self, *, norm: str | Sequence = "batch", **backbone: Any) -> None:
        super().__init__()
        self.backbone = build_backbone(encoder_only=True, norm=norm, **backbone)
        self.coarsest_stride, self.embedding_size = self.backbone.strides[-1], self.backbone.channels[-1]

    @torch.jit.export
    def embedding(self, x: Tensor) -> Tensor:
        """Vectors (B, embedding_size) of images (B, C, *spatial), for nearest neighbours and linear probes."""
        maps: list[Tensor] = self.backbone(2 * x - 1)
        return maps[-1].float().flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (B, embedding_size) of images (B, C, *spatial), see :meth:`embedding`."""
        return self.embedding(x)


class ClassifierNet(EncoderNet):
    """Logits of K classes from the vector of an :class:`EncoderNet`.

    Args:
        classes: Number K of logits.
        dropout: Share of the pooled values that training leaves out.
        trained_layers: Number of encoder layers that learn, counted from the coarsest: None for all (fine-tuning), 0
            for none (linear probe). The others also keep their batch statistics.
        **encoder: Options of :class:`EncoderNet`.

    Raises:
        ValueError: If there is no class, or ``trained_layers`` is not between 0 and the number of layers.
    """

    def __init__(
        self, classes: int, *, dropout: float | int = 0.0, trained_layers: int | None = None, **encoder: Any
    ) -> None:
        super().__init__(**encoder)
        if classes < 1:
            raise ValueError(f"classes is {classes}; expected the number of logits, at least 1")
        freeze_layers(self.backbone, trained_layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.embedding_size, classes)

    def train(self, mode: bool = True) -> "ClassifierNet":
        """Training mode; frozen layers stay in evaluation mode, or their batch statistics would drift."""
        super().train(mode)
        hold_frozen(self)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, *spatial)."""
        return self.head(self.dropout(self.embedding(x))).float()
