"""Peaks of similarity maps: the best few of them, and their position between the cells."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medpixcl.matching.search import unravel

FLOOR = 1e-6
"""Smallest similarity that a logarithm is taken of."""


def local_peaks(
    values: Float[Tensor, " k *cells"], count: int, *, radius: int = 2
) -> tuple[Int[Tensor, "k m d"], Float[Tensor, "k m"]]:
    """The highest local maxima of every map, best first.

    Args:
        values: Maps of shape (K, *cells), not negative.
        count: Number M of peaks; where a map has fewer, the last ones have value 0.
        radius: A peak is the largest value within so many cells along every axis.

    Returns:
        Cell indices (K, M, D) and the values there (K, M).
    """
    dims = values.ndim - 1
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    largest = pool(values[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    peaks = torch.where(values == largest, values, 0).flatten(1)
    scores, index = peaks.topk(min(count, peaks.shape[1]), dim=1)
    return unravel(index, values.shape[1:]), scores


def second_peaks(
    places: Float[Tensor, "k m d"], scores: Float[Tensor, "k m"], found: Float[Tensor, "k d"], exclusion: float
) -> Float[Tensor, " k"]:
    """The highest peak farther than ``exclusion`` from where each landmark was found; 0 where there is none."""
    distance = torch.linalg.vector_norm(places - found[:, None], dim=2)
    return torch.where(distance > exclusion, scores, 0).amax(dim=1)
