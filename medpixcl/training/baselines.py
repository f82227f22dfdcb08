"""Batches of the pretrainings that mix-up is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from medpixcl.training.batches import plain_tensor


class ViewsPrepareBatch(PrepareBatch):
    """Two views of every image, (B, 2, C, *spatial), and the number of each image in the batch.

    Args:
        keys: Keys of the two views.
    """

    def __init__(self, keys: Sequence[str] = ("image_first", "image_second")) -> None:
        self.keys = tuple(keys)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move both to the device."""
        views = torch.stack([plain_tensor(batchdata[key]) for key in self.keys], dim=1)
        return views.to(device, non_blocking=non_blocking), torch.arange(len(views), device=device)


class OpacityClassesPrepareBatch(PrepareBatch):
    """Mixtures, and for every voxel the number of its opacity among the levels, (B, 1, *spatial).

    Args:
        levels: Opacities that were mixed with.
        image_key: The batch holds the mixture under it and the map under ``image_key + "_opacity_map"``.
    """

    def __init__(self, levels: Sequence[float | int], image_key: str = "image") -> None:
        self.levels, self.image_key = torch.as_tensor(list(levels), dtype=torch.float32), image_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move both to the device; an opacity between two levels counts as the nearer one."""
        opacity = plain_tensor(batchdata[f"{self.image_key}_opacity_map"])
        classes = (opacity[..., None] - self.levels.to(opacity.device)).abs().argmin(dim=-1)
        mixed = plain_tensor(batchdata[self.image_key])
        return mixed.to(device, non_blocking=non_blocking), classes.to(device, non_blocking=non_blocking)
