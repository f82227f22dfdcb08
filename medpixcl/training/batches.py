"""Turn a collated batch of two views into inputs and targets of MONAI's trainers."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch

PAIRS = ("query", "positive", "valid")
OF_PAIRS = ("informativeness", "pixel_class")


def plain_tensor(value: Any, device: str | torch.device | None = None, non_blocking: bool = False) -> torch.Tensor:
    """Tensor without MONAI's metadata, which would slow down every layer; moved to the device, if given."""
    tensor = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
    return tensor.to(device=device, non_blocking=non_blocking)


class PixelPairsPrepareBatch(PrepareBatch):
    """The query view as input, the anchor view as second argument, the pixel pairs as target.

    Args:
        image_key: Prefix of the views' batch keys, ``image_key + "_query"`` and ``image_key + "_anchor"``. The batch
            also holds the pairs: ``query``, ``positive``, ``valid`` and, optionally, ``informativeness`` and
            ``pixel_class``.
    """

    def __init__(self, image_key: str = "image") -> None:
        self.image_key = image_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[torch.Tensor], dict]:
        """Move the views and pairs to the device."""

        def moved(key: str) -> torch.Tensor:
            return plain_tensor(batchdata[key], device, non_blocking)

        pairs = {key: moved(key) for key in (*PAIRS, *(key for key in OF_PAIRS if key in batchdata))}
        return moved(f"{self.image_key}_query"), pairs, (moved(f"{self.image_key}_anchor"),), {}
