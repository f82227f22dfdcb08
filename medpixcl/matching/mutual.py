"""Pixels of two images that take each other for the best match: correspondences without labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel
from medpixcl.matching.product import LevelMaps, describe
from medpixcl.matching.search import product_match


@dataclass(frozen=True)
class MutualMatches:
    """Positions at which K pixels of one image are found in another.

    Attributes:
        voxels: Voxel positions in the other image, shape (K, D), array order; they are centres of cells of the finest
            level.
        cycle_mm: Distance in the first image between the pixel and the best match of the found position, shape (K,).
    """

    voxels: Float[Tensor, "k d"]
    cycle_mm: Float[Tensor, " k"]


@torch.no_grad()
def mutual_matches(
    points: Float[Tensor, "k d"],
    image: LevelMaps,
    other: LevelMaps,
    strides: Sequence[int],
    shapes: tuple[Sequence[int], Sequence[int]],
    spacing: Sequence[float],
) -> MutualMatches:
    """Best match of pixels in another image, there and back, by the product of the levels' cosines.

    Args:
        points: Voxel positions, shape (K, D), array order.
        image: Levels (E, *cells) of the image that holds the points, unit vectors, finest first.
        other: Levels (E, *cells) of the other image, unit vectors, finest first.
        strides: Number of voxels per cell at every level.
        shapes: Shapes of both images in voxels before they were padded at their end.
        spacing: Size of a voxel of the first image in mm along the array axes.
    """
    there, _ = product_match(describe(image, strides, points), other, strides, shapes[1])
    voxels = cell_to_voxel(there.to(points), strides[0])
    back, _ = product_match(describe(other, strides, voxels), image, strides, shapes[0])
    distance = (cell_to_voxel(back.to(points), strides[0]) - points) * points.new_tensor(list(spacing))
    return MutualMatches(voxels, torch.linalg.vector_norm(distance, dim=1))
