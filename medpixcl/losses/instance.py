"""Contrast of whole images."""

from typing import Any

from monai.losses import ContrastiveLoss
from torch import Tensor, nn


class InstanceContrastLoss(nn.Module):
    """MONAI's :class:`monai.losses.ContrastiveLoss` (NT-Xent) between the two views of every image of a batch.

    Args:
        temperature: Number that divides the cosine; below about 0.02 MONAI's loss overflows.

    Raises:
        ValueError: On a call, if the batch has one image, which leaves nothing to contrast with.
    """

    def __init__(self, temperature: float | int = 0.2) -> None:
        super().__init__()
        self.loss = ContrastiveLoss(temperature)

    def forward(self, output: Tensor, target: Any = None) -> Tensor:
        """Loss of projected vectors (B, 2, P); there is no ``target``."""
        if len(output) < 2:
            raise ValueError("instance contrast needs batches of at least 2 images; found a batch of 1")
        return self.loss(output[:, 0], output[:, 1])
