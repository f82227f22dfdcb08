"""The network of instance contrast: two views of an image must be more alike than views of different images."""

from typing import Any

from torch import Tensor, nn

from medpixcl.networks.classifier import EncoderNet


class InstanceContrastNet(EncoderNet):
    """An encoder's vector of a whole image, through a projection head of two layers.

    The baseline after SimCLR (Chen et al., arXiv 2002.05709), section 2.

    Args:
        projection_size: Length P of the projected vectors.
        **encoder: Options of :class:`medpixcl.networks.classifier.EncoderNet`.
    """

    def __init__(self, *, projection_size: int = 128, **encoder: Any) -> None:
        super().__init__(**encoder)
        width = self.embedding_size
        self.projection_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_size))

    def forward(self, x: Tensor) -> Tensor:
        """Projected vectors (B, 2, P) of pairs of views (B, 2, C, *spatial), in float32."""
        return self.projection_head(self.embedding(x.flatten(0, 1))).float().unflatten(0, (-1, 2))
