"""How well an image stands for others, without labels: which images are worth annotating.

Key points are drawn in every image where there is something to see, and looked for in every other image that might
become the template. A template is good if the points of all the others are found in it: similar to what was looked
for, found again on the way back, and lying as one deformed shape. Every candidate is judged by the same points, so
that an image cannot win by having easy ones, and the points of one image can be shared out among several templates.

Reference: Quan et al., Which images to label for few-shot medical landmark detection? (SCP), CVPR 2022, arXiv
2112.04386: there the points of the candidate itself are looked for in the others, and similarity alone counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.peaks import FLOOR, refine_peaks
from medpixcl.matching.search import unravel
from medpixcl.matching.similarity import LevelMaps, LevelVectors, ProductMap

ROWS_AT_ONCE = 2**20
"""Similarities in memory at a time: they should stay in the cache."""
BORDER = 0.05
"""Share of the image along every side that holds no key point."""


def draw_key_points(
    informativeness: Float[Tensor, "*s"],
    count: int,
    *,
    spacing: Sequence[float],
    min_distance_mm: float,
    generator: torch.Generator,
) -> Float[Tensor, "k d"]:
    """Pixels drawn with a probability that rises with their informativeness, none near another.

    Pixels are drawn one after the other, without those near an earlier one or at the border of the image.

    Args:
        informativeness: Weight of every pixel, not negative, shape (*spatial).
        count: Number of points wanted.
        spacing: Size of a pixel in mm along every axis.
        min_distance_mm: Least distance of two points.
        generator: Of the draws.

    Returns:
        Voxels, shape (K, D) with K at most ``count``: fewer where the image has no more room.
    """
    weights = informativeness.detach().double().cpu().clone()
    for axis, size in enumerate(weights.shape):
        edge = int(BORDER * size)
        weights.narrow(axis, 0, edge).zero_()
        weights.narrow(axis, size - edge, edge).zero_()
    # An exponential race: in the order of arrival, pixels are drawn without replacement by their weights.
    arrival = torch.empty_like(weights).exponential_(generator=generator) / weights
    chosen: list[Tensor] = []
    while len(chosen) < count and bool((arrival.amin() < torch.inf)):
        point = unravel(arrival.argmin(), arrival.shape)
        chosen.append(point)
        _close_round(arrival, point.tolist(), spacing, min_distance_mm)
    return torch.stack(chosen).float() if chosen else torch.empty(0, weights.ndim)


def _close_round(arrival: Tensor, point: Sequence[int], spacing: Sequence[float], radius_mm: float) -> None:
    """Never let the pixels nearer than ``radius_mm`` to a point arrive, nor the point itself."""
    near, square = arrival, torch.zeros(())
    for axis, (centre, step) in enumerate(zip(point, spacing, strict=True)):
        reach = int(radius_mm / step)
        first, end = max(0, centre - reach), min(arrival.shape[axis], centre + reach + 1)
        near = near.narrow(axis, first, end - first)
        square = square[..., None] + ((torch.arange(first, end) - centre) * step).square()
    near.masked_fill_((square < radius_mm**2) | (square == 0), torch.inf)


def find_points(
    vectors: LevelVectors, levels: LevelMaps, strides: Sequence[int], grid: CellGrid
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Where each of many points looks most alike in an image, between the cells.

    Args:
        vectors: One (K, E) per level, unit vectors.
        levels: One (E, *cells) per level, finest first.
        strides: Voxels per cell of every level.
        grid: The cells that are searched.

    Returns:
        Voxels (K, D) and the products of the levels' cosines there (K).
    """
    inside = (slice(None), *[slice(n) for n in grid.shape])
    at_once = max(1, ROWS_AT_ONCE // levels[0][0].numel())
    found, scores = [], []
    for first in range(0, len(vectors[0]), at_once):
        product = ProductMap([level[first : first + at_once] for level in vectors], levels, strides)
        value, flat = product.full()[inside].flatten(1).max(dim=1)
        cell = unravel(flat, grid.shape)
        size = [min(3, n) for n in grid.shape]
        starts = grid.clamped_starts(cell.float(), size)
        rows = torch.arange(len(cell), device=cell.device)
        logs = product.windows(rows, starts, size).clamp_min(FLOOR).log()
        found.append(cell_to_voxel(starts + refine_peaks(logs, cell - starts), strides[0]))
        scores.append(value)
    return torch.cat(found), torch.cat(scores)
