"""The landmarks of an image, as they are known at this moment of a training."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from medpixcl.landmarks.pseudo import PseudoLandmarks


class PseudoLandmarksd(Transform):
    """Add the landmarks of an image in mm, and their weights, to its item.

    They change in the course of a training; workers see the change when they are started anew, every epoch (so not with
    ``persistent_workers``).

    Args:
        labels: Where they are kept.
        image_key: The image; its file's name is what they are kept by.
    """

    def __init__(self, labels: PseudoLandmarks, image_key: str = "image") -> None:
        self.labels, self.image_key = labels, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with ``points`` (K, D) and ``weights`` (K,)."""
        item = dict(data)
        image = item[self.image_key]
        name = str(image.meta["filename_or_obj"])
        item["points"] = self.labels.points(name, image.ndim - 1).clone()
        item["weights"] = self.labels.weights(name).clone()
        return item
