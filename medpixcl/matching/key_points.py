"""Key points: how well an image represents others, without labels, so that one knows which to annotate.

Key points are drawn in every image, with a preference for informative places, and searched in every other image that
might become the template. A template is good if it shows the points of all the others: they look similar, lead back to
where they came from, and lie as one deformed shape. All candidates are judged by the same points, so an image cannot
win by having easy ones, and several templates can share the points of one image.

Reference: Quan et al., Which images to label for few-shot medical landmark detection? (SCP), CVPR 2022, arXiv
2112.04386: there the points of the candidate itself are looked for in the others, and similarity alone counts.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel
from medpixcl.landmarks.heatmaps import refine_peaks
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.peaks import FLOOR
from medpixcl.matching.product import LevelMaps, LevelVectors, ProductMap
from medpixcl.matching.search import unravel

ROWS_AT_ONCE = 2**20
"""Largest number of similarities in memory, chosen to stay in the cache."""
BORDER = 0.05
"""Share of the image, along every side, without key points."""
CYCLE_MM = 3.0
"""Cycle distance at which a point counts exp(-1/2)."""
MOST_UNSURE = 0.2
"""Greatest share of unsure landmarks with a fair template. On cephalograms, 18 templates had at most 0.021; one of
them mirrored, upside down, with inverted grey levels or half covered had 0.75 and more."""


def draw_key_points(
    informativeness: Float[Tensor, "*s"],
    count: int,
    *,
    spacing: Sequence[float],
    min_distance_mm: float,
    generator: torch.Generator,
) -> Float[Tensor, "k d"]:
    """Draw pixels with a probability that rises with their informativeness, none near another.

    Pixels are drawn one after the other; those near an earlier one or at the border of the image are left out.

    Args:
        informativeness: Weight of every pixel, not negative, shape (*spatial).
        count: Number of points wanted.
        spacing: Size of a pixel in mm along every axis.
        min_distance_mm: Least distance of two points.
        generator: Random generator of the draws.

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
    while len(chosen) < count and bool(arrival.amin() < torch.inf):
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
    """Find the position in an image that looks most similar to each of many points, between the cells.

    Args:
        vectors: Unit vectors of the points, one (K, E) per level.
        levels: Level maps of the image, one (E, *cells) per level, finest first.
        strides: Number of voxels per cell at every level.
        grid: Grid of the cells that are searched.

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


def point_quality(similarity: Float[Tensor, "*n"], cycle_mm: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Quality of found points, from 0 to 1: ``similarity * exp(-cycle^2 / (2 CYCLE_MM^2))``.

    A place that looks similar but leads back to somewhere else was not found.

    Args:
        similarity: Product of the levels' cosines.
        cycle_mm: Distance in mm between the point and the best match of the found position.
    """
    return similarity * torch.exp(-cycle_mm.square() / (2 * CYCLE_MM**2))


def choose_greedily(
    quality: Float[Tensor, "r n"], weights: Float[Tensor, " r"], count: int
) -> tuple[list[int], list[float]]:
    """Choose, one after the other, the images that together serve all points best (facility location).

    A set is worth ``sum_r w_r max_{i in set} quality_ri``; each step takes the image that raises this most. No set of
    that size is worth more than 1 / (1 - 1/e) = 1.58 times as much.

    Args:
        quality: Quality of image i for point r, not negative, shape (R, N).
        weights: Weights of the points, shape (R,).
        count: Number of images wanted, 1 to N.

    Returns:
        The images in the order of their choice (the first one of equals), and what the set is worth after each.

    Raises:
        ValueError: If ``count`` is not between 1 and N.

    Reference: Nemhauser, Wolsey and Fisher, Mathematical Programming 14 (1978) 265-294.

    Example:
        >>> quality = torch.tensor([[0.9, 0.6, 0.0], [0.8, 0.6, 0.0], [0.0, 0.6, 0.9]])
        >>> choose_greedily(quality, torch.full((3,), 1 / 3), 2)[0]
        [1, 0]
    """
    if not 1 <= count <= quality.shape[1]:
        raise ValueError(f"asked for {count} of {quality.shape[1]} images; ask for 1 to {quality.shape[1]}")
    served = torch.zeros_like(weights)
    chosen: list[int] = []
    values: list[float] = []
    for _ in range(count):
        worth = weights @ torch.maximum(quality, served[:, None])
        worth[chosen] = -torch.inf
        best = int(worth.argmax())
        chosen.append(best)
        values.append(float(worth[best]))
        served = torch.maximum(served, quality[:, best])
    return chosen, values


def template_warning(flags: Sequence[Sequence[str]]) -> str:
    """Warn the user of a template that fits the images poorly, judged by the matches alone; empty if it fits.

    Args:
        flags: Flags of every image and landmark, see :class:`medpixcl.matching.MatchResult`.

    Example:
        >>> template_warning([["", "unsure"], ["", ""]])[:33]
        '25 % of the landmarks are unsure,'
        >>> template_warning([["", "", ""], ["", "unsure", "missing"]])
        ''
    """
    looked_for = [flag for row in flags for flag in row if flag != "missing"]
    share = sum(flag == "unsure" for flag in looked_for) / max(1, len(looked_for))
    if share <= MOST_UNSURE:
        return ""
    return (
        f"{100 * share:.0f} % of the landmarks are unsure, more than {100 * MOST_UNSURE:.0f} %: this template fits the "
        "images poorly. See that it shows the same view, and annotate the image that `medpixcl choose-template` names."
    )
