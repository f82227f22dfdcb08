"""Similarity of a landmark to every cell: cosine maps of the levels, and their product at the finest level.

The product at a cell multiplies the levels' cosines, each clamped to at least 0 and interpolated linearly to the
centres of the finest level's cells (``align_corners=False``, the border value beyond the outermost centres).
Similarities are interpolated, never embeddings.

Reference: Yao et al., One-Shot Medical Landmark Detection (CC2D), MICCAI 2021, arXiv 2103.04527, section 2.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import sample_at, voxel_to_cell

LevelMaps = Sequence[Float[Tensor, "_ ..."]]
"""One map (E, *cells) of unit vectors per level, finest first; E and the cells differ between levels."""
LevelVectors = Sequence[Float[Tensor, "k _"]]
"""One row per landmark, (K, E) for every level, finest first."""


def describe(levels: LevelMaps, strides: Sequence[int], points: Float[Tensor, "k d"]) -> list[Tensor]:
    """Interpolate the unit vectors of every level at voxel positions; returns (K, E) per level, finest first."""
    vectors = [
        sample_at(level[None], voxel_to_cell(points[None].to(level), stride))[0]
        for level, stride in zip(levels, strides, strict=True)
    ]
    return [F.normalize(vector, dim=1) for vector in vectors]


class ProductMap:
    """Product of the levels' cosines for K landmarks, computed only where it is needed.

    The similarity maps of the coarser levels are computed at once; that of the finest, by far the largest, is not.

    Args:
        queries: Unit vectors of the landmarks, one (K, E) per level.
        levels: Maps of unit vectors, one (E, *cells) per level, finest first.
        strides: Number of voxels per cell at every level.

    Raises:
        ValueError: If the numbers of levels, the vector lengths or the order of the strides do not fit.
    """

    def __init__(self, queries: LevelVectors, levels: LevelMaps, strides: Sequence[int]) -> None:
        _check(queries, levels, strides)
        self.queries = list(queries)
        self.finest = levels[0]
        self.ratios = [stride / strides[0] for stride in strides[1:]]
        self.coarse = [similarity_map(*pair) for pair in zip(queries[1:], levels[1:], strict=True)]

    @property
    def cells(self) -> list[int]:
        """Size of the finest level's grid."""
        return list(self.finest.shape[1:])

    def full(self, rows: slice = slice(None)) -> Float[Tensor, " k *cells"]:
        """The whole product map of some landmarks, shape (K, *cells of the finest level)."""
        product = similarity_map(self.queries[0][rows], self.finest)
        for similarity, ratio in zip(self.coarse, self.ratios, strict=True):
            product *= upsample(similarity[rows], ratio, self.cells)
        return product

    def tile_bounds(self, searched: Sequence[int], tile: int) -> Float[Tensor, "k tiles"]:
        """Upper bound of the product in every tile of ``tile`` finest cells along each axis; shape (K, tiles).

        The finest cosine is at most 1; a coarse one at most the greatest of the coarse cells that reach into the tile.
        """
        grid = [-(-cells // tile) for cells in searched]
        bound = self.finest.new_ones(len(self.queries[0]), *grid)
        for similarity, ratio in zip(self.coarse, self.ratios, strict=True):
            greatest = similarity
            for axis, tiles in enumerate(grid, start=1):
                greatest = _greatest_reach(greatest, axis, tiles, tile / ratio)
            bound = bound * greatest
        return bound.flatten(1)

    def windows(
        self, rows: Int[Tensor, " n"], starts: Int[Tensor, "n d"], size: Sequence[int]
    ) -> Float[Tensor, " n *size"]:
        """The product in windows of finest cells.

        Args:
            rows: Index of the landmark of each window, shape (N,).
            starts: First cell of each window, shape (N, D); the windows must lie inside the grid.
            size: Number of cells of a window along every axis.

        Returns:
            Shape (N, *size).
        """
        index = _window_index(starts, size, self.cells)
        patches = self.finest.movedim(0, -1)[tuple(index)]
        product = torch.einsum("ne,n...e->n...", self.queries[0][rows], patches).clamp_min_(0)
        for similarity, ratio in zip(self.coarse, self.ratios, strict=True):
            product *= _upsampled_windows(similarity, rows, starts, size, ratio)
        return product


def similarity_map(queries: Float[Tensor, "k c"], level: Float[Tensor, " c *cells"]) -> Float[Tensor, " k *cells"]:
    """Cosine of unit vectors with every cell, clamped to at least 0; shape (K, *cells)."""
    return (queries @ level.flatten(1)).clamp_min_(0).unflatten(1, level.shape[1:])


def upsample(similarity: Float[Tensor, " k *coarse"], ratio: float, cells: Sequence[int]) -> Float[Tensor, " k *cells"]:
    """Linear interpolation of a map to the cells of a grid that is ``ratio`` times finer; shape (K, *cells)."""
    missing = [max(0, int(-(-n // ratio)) - m) for n, m in zip(cells, similarity.shape[1:], strict=True)]
    if any(missing):
        pad = [width for n in reversed(missing) for width in (0, n)]
        similarity = F.pad(similarity[None], pad, mode="replicate")[0]
    mode = "bilinear" if len(cells) == 2 else "trilinear"
    fine = F.interpolate(similarity[None], scale_factor=ratio, mode=mode, align_corners=False)[0]
    return fine[(slice(None), *[slice(n) for n in cells])]


def _greatest_reach(similarity: Tensor, axis: int, tiles: int, step: float) -> Tensor:
    """Maximum along one axis over the coarse cells that interpolation uses within each of the tiles."""
    last = similarity.shape[axis] - 1
    parts = []
    for number in range(tiles):
        first = min(max(0, math.floor(number * step - 0.5)), last)
        end = min(max(0, math.ceil((number + 1) * step - 0.5)), last)
        parts.append(similarity.narrow(axis, first, end - first + 1).amax(dim=axis, keepdim=True))
    return torch.cat(parts, dim=axis)


def _window_index(starts: Tensor, size: Sequence[int], shape: Sequence[int]) -> list[Tensor]:
    """Index of every cell of the windows along each axis, to broadcast to (N, *size); clamped to the grid."""
    index = []
    for axis, (length, cells) in enumerate(zip(size, shape, strict=True)):
        steps = starts[:, axis, None] + torch.arange(length, device=starts.device)
        view = [len(starts)] + [1] * len(size)
        view[axis + 1] = length
        index.append(steps.clamp(0, cells - 1).view(view))
    return index


def _upsampled_windows(similarity: Tensor, rows: Tensor, starts: Tensor, size: Sequence[int], ratio: float) -> Tensor:
    """Windows of the interpolated map, from the coarse cells around each; shape (N, *size)."""
    offset = ((starts + 0.5) / ratio - 0.5).floor().long()
    width = [int((length - 1) / ratio) + 3 for length in size]
    rows = rows.view(-1, *[1] * len(size))
    patch = similarity[(rows, *_window_index(offset, width, similarity.shape[1:]))]
    for axis, length in enumerate(size):
        fine = (starts[:, axis, None] + torch.arange(length, device=starts.device) + 0.5) / ratio - 0.5
        cells = offset[:, axis, None] + torch.arange(width[axis], device=starts.device)
        weights = (1 - (fine[:, :, None] - cells[:, None, :]).abs()).clamp_min(0).to(patch)
        moved = patch.movedim(axis + 1, 1)
        patch = torch.bmm(weights, moved.flatten(2)).unflatten(2, moved.shape[2:]).movedim(1, axis + 1)
    return patch


def _check(queries: LevelVectors, levels: LevelMaps, strides: Sequence[int]) -> None:
    """One sentence for what does not fit."""
    if not len(queries) == len(levels) == len(strides) > 0:
        raise ValueError(
            f"found queries for {len(queries)} levels, maps for {len(levels)} and {len(strides)} strides; "
            "expected one of each for every level"
        )
    if list(strides) != sorted(set(strides)):
        raise ValueError(f"levels must come finest first with growing strides, found strides {list(strides)}")
    lengths = [(query.shape[1], level.shape[0]) for query, level in zip(queries, levels, strict=True)]
    if any(query != level for query, level in lengths):
        raise ValueError(f"vector lengths of queries and levels must be equal at every level, found {lengths}")
