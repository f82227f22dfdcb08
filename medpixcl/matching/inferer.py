"""Matching as a MONAI inferer: the landmarks of annotated images, found in whole images."""

from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.matching.matcher import LandmarkMatcher


class MatchingInferer(Inferer):
    """Finds the landmarks of the annotated images that a matcher was fitted to.

    Args:
        matcher: Matcher of the landmarks; fit it before the first call, to an embedding by the same network.
        levels: Inferer that runs the embedding network on whole images
            (:class:`medpixcl.networks.inferers.LevelsInferer`), for the embedding that the matcher is fitted with.
    """

    def __init__(self, matcher: LandmarkMatcher, levels: Inferer) -> None:
        super().__init__()
        self.matcher, self.levels = matcher, levels

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Landmarks of images (B, C, *spatial) with affines.

        Returns:
            ``points`` (B, K, D), voxels of the images in array order, NaN for landmarks that no annotated image has;
            ``confidence`` (B, K), 0 to 1; ``covariance_mm2`` (B, K, D, D), along the array axes; and ``flags``, K words
            for each image, see :class:`medpixcl.matching.MatchResult`.

        Raises:
            ValueError: If the images carry no affines.
        """
        if not isinstance(inputs, MetaTensor):
            raise ValueError("the images to match carry no affines, so their spacing is unknown; give MetaTensors")
        dims, images = inputs.ndim - 2, inputs.as_tensor()
        found = [
            self.matcher.match(image[None], images.shape[2:], _spacing(affine, dims))
            for image, affine in zip(images, inputs.affine, strict=True)
        ]
        return {
            "points": torch.stack([result.voxels for result in found]),
            "confidence": torch.stack([result.scores for result in found]),
            "covariance_mm2": torch.stack([one.covariance_mm2 for one in found]),
            "flags": [result.flags for result in found],
        }


def _spacing(affine: Tensor, dims: int) -> list[float]:
    """Size of a voxel in mm along the array axes."""
    return spacing_of(spatial_affine(affine.to(device="cpu", dtype=torch.float64), dims)).tolist()
