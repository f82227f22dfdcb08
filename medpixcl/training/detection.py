"""Batches and validation error of landmark networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from monai.engines import PrepareBatch
from torch import Tensor

from medpixcl.training.batches import plain_tensor


class LandmarkPrepareBatch(PrepareBatch):
    """The image as input; the points and weights of its landmarks as target."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Move image and target to the device."""

        def moved(key: str) -> Tensor:
            return plain_tensor(batchdata[key], device, non_blocking)

        return moved("image"), {key: moved(key) for key in ("points", "weights")}


class LandmarkError(Metric):
    """Mean distance in mm between predicted and true landmarks, weighted by the weights of the true ones.

    Args:
        spacing_mm: Size of a voxel along each array axis.
        output_transform: Function from the engine's output to (predicted, true), such as MONAI's
            ``from_engine(["pred", "label"])``.
    """

    required_output_keys = None

    def __init__(self, spacing_mm: Sequence[float], output_transform: Callable = lambda output: output) -> None:
        self.spacing_mm = list(spacing_mm)
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Start a new average."""
        self._sum, self._count = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    @reinit__is_reduced
    def update(self, output: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]) -> None:
        """Add the landmarks of a batch."""
        found, given = output
        away = (found["points"] - given["points"]) * found["points"].new_tensor(self.spacing_mm)
        distance = torch.linalg.vector_norm(away, dim=-1)
        weights = torch.where(distance.isnan(), 0, given["weights"])
        self._sum += (weights * distance.nan_to_num(0)).sum().double().cpu()
        self._count += weights.sum().double().cpu()

    @sync_all_reduce("_sum", "_count")
    def compute(self) -> float:
        """Mean over all landmarks since the last reset."""
        if self._count == 0:
            raise NotComputableError("no validation image has a landmark to compare with: give more images")
        return float(self._sum / self._count)
