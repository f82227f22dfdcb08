"""Landmarks of an image added to its item: annotated ones from a file, or pseudo-landmarks of the current epoch."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform

from medpixcl.data.annotated import Target, target_points
from medpixcl.landmarks.pseudo import PseudoLandmarks


class AnnotatedLandmarksd(Transform):
    """Replace the landmark file of a loaded image by the landmarks in mm and their weights.

    Args:
        names: K landmarks, in the network's order; those that a file does not have are missing.
        target: Name of a reader, ``mean``, or the weight of each; see :mod:`medpixcl.data.annotated`.
    """

    def __init__(self, names: Sequence[str], target: Target = None) -> None:
        self.names, self.target = list(names), target

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with ``points`` (K, D), mm, RAS+, NaN where missing, and ``weights`` (K,), 0 there, else 1.

        Raises:
            ValueError: If the files have no landmark of this image.
        """
        item = dict(data)
        meta = item["image"].meta
        points = target_points(
            item.pop("landmarks"),
            self.target,
            self.names,
            str(meta["filename_or_obj"]),
            torch.as_tensor(meta["original_affine"], dtype=torch.float64),
            [int(size) for size in meta["spatial_shape"]],
        )
        item["points"], item["weights"] = points, (~points.isnan().any(dim=1)).float()
        return item


class PseudoLandmarksd(Transform):
    """Add the landmarks of an image in mm, and their weights, to its item.

    They change in the course of a training; workers see the change when they are started anew, every epoch (so not with
    ``persistent_workers``).

    Args:
        labels: Where they are kept.
    """

    def __init__(self, labels: PseudoLandmarks) -> None:
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with ``points`` (K, D) and ``weights`` (K,)."""
        item = dict(data)
        image = item["image"]
        name = str(image.meta["filename_or_obj"])
        item["points"] = self.labels.points(name, image.ndim - 1).clone()
        item["weights"] = self.labels.weights(name).clone()
        return item
