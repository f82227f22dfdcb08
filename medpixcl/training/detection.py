"""Batches and validation error of landmark networks."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from monai.engines import PrepareBatch
from torch import Tensor

from medpixcl.data import SeededDataset
from medpixcl.matching import ShapeStatistics
from medpixcl.training.batches import plain_tensor
from medpixcl.training.ratio import RatioOfSums

log = logging.getLogger(__name__)


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


def annotated_shape(dataset: SeededDataset, names: Sequence[str]) -> dict[str, Any] | None:
    """Compute the shape of the training landmarks, by which a detector judges what it finds.

    Args:
        dataset: Training images, prepared with their landmarks in mm (``points``).
        names: Names of the landmarks.

    Returns:
        Data of :class:`medpixcl.matching.ShapeStatistics`; None for fewer than three landmarks, or where no image has
        all of them.
    """
    prepared = dataset.prepared
    shape = ShapeStatistics.of(torch.stack([prepared[n]["points"] for n in range(len(dataset.data))]), names)
    return None if shape is None else shape.to_data()


class LandmarkError(RatioOfSums):
    """Mean distance in mm between predicted and true landmarks, weighted by the weights of the true ones.

    Args:
        spacing_mm: Size of a voxel along each array axis.
        output_transform: Function from the engine's output to (predicted, true), such as MONAI's
            ``from_engine(["pred", "label"])``.
        required: Whether a validation without any landmark to compare with ends the training; otherwise the error is
            NaN then, with a warning.
    """

    def __init__(
        self,
        spacing_mm: Sequence[float],
        output_transform: Callable = lambda output: output,
        required: bool = True,
    ) -> None:
        self.spacing_mm, self.required = list(spacing_mm), required
        super().__init__("no validation image has a landmark to compare with: give more images", output_transform)

    def quantities(self, output: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Weighted distances of the landmarks of a batch, and their weights."""
        found, given = output
        away = (found["points"] - given["points"]) * found["points"].new_tensor(self.spacing_mm)
        distance = torch.linalg.vector_norm(away, dim=-1)
        weights = torch.where(distance.isnan(), 0, given["weights"])
        return weights * distance.nan_to_num(0), weights

    def compute(self) -> float:
        """Mean over the landmarks since the last reset."""
        try:
            return super().compute()
        except NotComputableError as reason:
            if self.required:
                raise
            log.warning("%s", reason)
            return float("nan")
