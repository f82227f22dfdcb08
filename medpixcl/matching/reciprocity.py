"""Refinement in both directions: a place in the query should have the template's landmark as its best match.

A high similarity between a landmark and a place may only mean that the place looks like everything around the
landmark. The similarity is therefore compared with that of the same place to the template's cells around the landmark:
for log similarities ``s(landmark, place)`` and ``s(cell, place)``, the score is ``s + 2 * (s - softmax_cells s)``. The
second term is the logarithm of the landmark's share in the place, at most 0.

Reference: the dual softmax of Sun et al., LoFTR, CVPR 2021, section 3.3, kept to a neighbourhood.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.product import LevelMaps, describe

LEAST_COSINE = 1e-3
"""Smallest cosine whose logarithm is taken, so that one level alone cannot rule a place out."""
SHARE = 2.0
"""Weight of the backward direction."""
TEMPERATURE = 0.1
"""Temperature of the softmax over the template's cells."""
AROUND = {2: 6, 3: 2}
"""Number of template cells on each side of a landmark, along every axis, that compete with it, in 2D and 3D."""
SEARCH_CELLS = 4
"""Number of query cells on each side of a first position, along every axis, that are searched."""
AT_ONCE = 16
"""Number of landmarks whose windows are in memory at a time."""


def lattice(dims: int, reach: int) -> Int[Tensor, "n d"]:
    """All whole steps of at most ``reach`` along every axis, shape (N, D)."""
    return torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=dims)))


def surroundings(levels: LevelMaps, strides: Sequence[int], points: Float[Tensor, "r d"]) -> list[Tensor]:
    """Unit vectors of the template at and around each landmark, a cell of the finest level apart.

    Args:
        levels: Level maps of the image, one (E, *cells) per level, finest first.
        strides: Number of voxels per cell at every level.
        points: Landmarks as voxel positions, shape (R, D).

    Returns:
        One (R, N, E) per level.
    """
    steps = lattice(points.shape[1], AROUND[points.shape[1]]).to(points)
    places = (points[:, None] + steps * strides[0]).flatten(0, 1)
    return [vectors.unflatten(0, (len(points), -1)) for vectors in describe(levels, strides, places)]


def reciprocal_windows(
    around: Sequence[Float[Tensor, "r n _"]],
    owner: Int[Tensor, " r"],
    levels: LevelMaps,
    strides: Sequence[int],
    starts: Int[Tensor, "k d"],
    size: Sequence[int],
) -> Float[Tensor, "r ..."]:
    """Compute the score of every cell in a window of the query, for each row of template vectors.

    Args:
        around: Vectors at and around the landmarks, (R, N, E) per level, see :func:`surroundings`.
        owner: Index of the landmark of each row, shape (R,), ascending.
        levels: Level maps of the query, (E, *cells), finest first.
        strides: Number of voxels per cell at every level.
        starts: First cell of each landmark's window, shape (K, D).
        size: Number of cells of a window along every axis.

    Returns:
        Logarithmic scores, shape (R, *size).
    """
    steps = torch.tensor(list(itertools.product(*[range(n) for n in size])), device=starts.device)
    scores = []
    for first in range(0, len(starts), AT_ONCE):
        cells = starts[first : first + AT_ONCE, None] + steps
        voxels = cell_to_voxel(cells.float(), strides[0]).flatten(0, 1)
        rows = (owner >= first) & (owner < first + AT_ONCE)
        logs = torch.zeros(())
        for template, query in zip(around, describe(levels, strides, voxels), strict=True):
            places = query.unflatten(0, (-1, len(steps)))[owner[rows] - first]
            logs = logs.to(query) + (template[rows] @ places.mT).clamp_min(LEAST_COSINE).log()
        here = logs[:, logs.shape[1] // 2]
        share = here - TEMPERATURE * torch.logsumexp(logs / TEMPERATURE, dim=1)
        scores.append(here + SHARE * share)
    return torch.cat(scores).unflatten(1, list(size))


def refinement_window(grid: CellGrid, cells: Float[Tensor, "k d"]) -> tuple[Int[Tensor, "k d"], list[int]]:
    """First cells and size of the windows around first positions."""
    size = [min(2 * SEARCH_CELLS + 1, length) for length in grid.shape]
    return grid.clamped_starts(cells, size), size
