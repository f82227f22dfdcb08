"""Landmarks of an image added to its item: annotated ones from a file, or pseudo-landmarks of the current epoch."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform

from medpixcl.data.annotated import Target, target_points
from medpixcl.landmarks.pseudo import PseudoLandmarks


class AnnotatedLandmarksd(Transform):
    """Replace the landmark file of a loaded image, under ``landmarks``, by the landmarks in mm and their weights.

    Args:
        names: Names of the K landmarks in the network's order; a landmark that a file lacks is missing.
        target: Name of a reader, ``mean``, or the weight of each reader; see :mod:`medpixcl.data.annotated`.
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
    """Add the current pseudo-landmarks of an image in mm, and their weights, to its item.

    Training changes them. The workers of a ``DataLoader`` see a change when they start anew, every epoch; with
    ``persistent_workers`` they would not.

    Args:
        labels: Store of the pseudo-landmarks, by the file name of the image.
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
