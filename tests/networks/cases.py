"""Small networks of every backbone, and images for them."""

from typing import Any

import torch
from torch import Tensor

from medpixcl.networks import PixelEmbeddingNet

CHANNELS: dict[str, list[int]] = {
    "efficientnet-lite0": [8, 8, 12, 16],
    "resnet18": [8, 8, 12, 16],
    "dynunet": [4, 8, 12, 16],
    "unet": [4, 8, 12, 16],
}
SIZE = {2: (32, 64), 3: (32, 32, 32)}


def make(name: str, dims: int, **options: Any) -> PixelEmbeddingNet:
    """Always the same weights."""
    torch.manual_seed(0)
    given = {"backbone": name, "spatial_dims": dims, "channels": CHANNELS[name], "embedding_size": 6}
    return PixelEmbeddingNet(**(given | options))


def picture(dims: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Image between 0 and 1, (batch, 1, *spatial)."""
    return torch.rand(batch, 1, *SIZE[dims], generator=torch.Generator().manual_seed(seed))
