"""Peaks of similarity maps: the highest few, the highest one away from a found position, and the shape of one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medpixcl.landmarks.heatmaps import heatmap_covariance
from medpixcl.matching.search import unravel

FLOOR = 1e-6
"""Smallest similarity whose logarithm is taken."""


def local_peaks(
    values: Float[Tensor, " k *cells"], count: int, *, radius: int = 2
) -> tuple[Int[Tensor, "k m d"], Float[Tensor, "k m"]]:
    """Find the highest local maxima of every map, best first.

    Args:
        values: Maps of shape (K, *cells), not negative.
        count: Number M of peaks; if a map has fewer, the last ones have value 0.
        radius: Number of cells along every axis within which a peak is the largest value.

    Returns:
        Cell indices (K, M, D) and the values there (K, M).
    """
    largest = values[:, None]
    pool = F.max_pool2d if values.ndim == 3 else F.max_pool3d
    for axis in range(values.ndim - 1):  # the largest of a box, one axis after the other
        side, margin = [1] * (values.ndim - 1), [0] * (values.ndim - 1)
        side[axis], margin[axis] = 2 * radius + 1, radius
        largest = pool(largest, side, stride=1, padding=margin)
    largest = largest[:, 0]
    peaks = torch.where(values == largest, values, 0).flatten(1)
    scores, index = peaks.topk(min(count, peaks.shape[1]), dim=1)
    return unravel(index, values.shape[1:]), scores


def second_peaks(
    places: Float[Tensor, "k m d"], scores: Float[Tensor, "k m"], found: Float[Tensor, "k d"], exclusion: float
) -> Float[Tensor, " k"]:
    """Value of the highest peak farther than ``exclusion`` from each found landmark; 0 without a peak."""
    distance = torch.linalg.vector_norm(places - found[:, None], dim=2)
    return torch.where(distance > exclusion, scores, 0).amax(dim=1)


def upper_half_covariance(
    values: Float[Tensor, "k ..."], *, stride: int, spacing_mm: Sequence[float]
) -> Float[Tensor, "k d d"]:
    """Covariance in mm^2 of the upper half of windows of similarities, from the least to the greatest in each.

    Args:
        values: Windows around found positions, shape (K, *size).
        stride: Number of voxels per cell.
        spacing_mm: Size of a voxel in mm along each array axis.
    """
    least, greatest = values.flatten(1).aminmax(dim=1)
    upper = (values - ((least + greatest) / 2).view(-1, *[1] * (values.ndim - 1))).clamp_min(0)[None]
    return heatmap_covariance(upper, stride=stride, spacing_mm=spacing_mm, radius=max(values.shape[1:]) - 1)[0]
