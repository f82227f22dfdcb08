"""The true landmarks of an image from its landmark file, beside the image."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform

from medpixcl.data.annotated import Target, target_points


class AnnotatedLandmarksd(Transform):
    """Replace the landmark file of a loaded image by the landmarks in mm and their weights.

    Args:
        names: K landmarks, in the network's order; those that a file does not have are missing.
        target: Name of a reader, ``mean``, or the weight of each; see :mod:`medpixcl.data.annotated`.
        landmarks_key: Path of the landmark file, or of that of each reader by name.
        image_key: The image, loaded; it may be resampled.
    """

    def __init__(
        self, names: Sequence[str], target: Target = None, landmarks_key: str = "landmarks", image_key: str = "image"
    ) -> None:
        self.names, self.target = list(names), target
        self.landmarks_key, self.image_key = landmarks_key, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with ``points`` (K, D), mm, RAS+, NaN where missing, and ``weights`` (K,), 0 there, else 1.

        Raises:
            ValueError: If the files have no landmark of this image.
        """
        item = dict(data)
        meta = item[self.image_key].meta
        points = target_points(
            item.pop(self.landmarks_key),
            self.target,
            self.names,
            str(meta["filename_or_obj"]),
            torch.as_tensor(meta["original_affine"], dtype=torch.float64),
            [int(size) for size in meta["spatial_shape"]],
        )
        item["points"], item["weights"] = points, (~points.isnan().any(dim=1)).float()
        return item
