"""Exact search for the cell that fits a vector best, in one map and in the product of several levels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.matching.product import LevelMaps, LevelVectors, ProductMap

TILE = 32  # cells along every axis that one bound covers
ROUNDING = 1e-5  # bounds and products are rounded differently
TILES_PER_TURN = 4  # evaluated for every landmark before bounds are compared again


def best_match(
    queries: Float[Tensor, "k _"], embedding: Float[Tensor, " c *cells"], *, tile: int = 4096
) -> tuple[Int[Tensor, "k d"], Float[Tensor, " k"]]:
    """Find the cell with the largest scalar product for every query.

    Exact, without a matrix of all queries times all cells: the products of one tile of cells stay in the cache, where
    only their maximum is read; the position is looked for in the winning tile alone.

    Args:
        queries: Query vectors, shape (K, C).
        embedding: Map to search, shape (C, *cells); contiguous for speed.
        tile: Number of cells looked at together; 4096 suits a CPU, a million a GPU.

    Returns:
        Cell indices (K, D) in array order and their scalar products (K).

    Raises:
        ValueError: If the vectors differ in length.

    Example:
        >>> best_match(torch.tensor([[0.0, 1.0]]), torch.eye(2).view(2, 1, 2))
        (tensor([[0, 1]]), tensor([1.]))
    """
    if queries.shape[1] != embedding.shape[0]:
        raise ValueError(
            f"queries have {queries.shape[1]} channels, the embedding {embedding.shape[0]}; expected equal numbers"
        )
    flat = embedding.flatten(1)
    parts = flat.split(tile, dim=1)
    best = torch.stack([(queries @ part).amax(dim=1) for part in parts], dim=1)
    winner = best.argmax(dim=1)
    index = torch.empty_like(winner)
    for number in winner.unique().tolist():
        rows = (winner == number).nonzero().squeeze(1)
        index[rows] = (queries[rows] @ parts[number]).argmax(dim=1) + number * tile
    scores = (queries * flat[:, index].T).sum(dim=1)
    return unravel(index, embedding.shape[1:]), scores


def product_match(
    queries: LevelVectors, levels: LevelMaps, strides: Sequence[int], shape: Sequence[int] | None = None
) -> tuple[Int[Tensor, "k d"], Float[Tensor, " k"]]:
    """Find the cell of the finest level with the largest product of the levels' cosines for every landmark.

    Exact, by branch and bound: a product is at most the product of its coarse factors, and an interpolated value is at
    most the greatest of its neighbours, so tiles that cannot hold the best cell are never computed at the finest level.

    Args:
        queries: Unit vectors of the landmarks, one (K, E) per level.
        levels: Maps of unit vectors, one (E, *cells) per level, finest first.
        strides: Number of voxels per cell at every level.
        shape: Shape of the image in voxels before it was padded; cells with a centre beyond it are not searched.

    Returns:
        Cell indices (K, D) in array order and the products there (K).

    Raises:
        ValueError: If the numbers of levels, the vector lengths or the order of the strides do not fit.
    """
    product = ProductMap(queries, levels, strides)
    searched = cells_inside(product.cells, strides[0], shape)
    bounds = product.tile_bounds(searched, TILE)
    order = bounds.argsort(dim=1, descending=True)
    scores = bounds.new_full((len(bounds),), -1.0)
    index = torch.zeros(len(bounds), len(searched), dtype=torch.long, device=bounds.device)
    open_rows, done = torch.arange(len(bounds), device=bounds.device), 0
    while len(open_rows) and done < bounds.shape[1]:
        chosen = order[open_rows, done : done + TILES_PER_TURN]
        found, values = _best_in_tiles(product, open_rows, chosen, searched)
        better = values > scores[open_rows]
        scores[open_rows] = torch.where(better, values, scores[open_rows])
        index[open_rows] = torch.where(better[:, None], found, index[open_rows])
        done += chosen.shape[1]
        if done < bounds.shape[1]:
            # Tiles come with falling bounds: once the best of the rest cannot win, nothing later can.
            rest = bounds[open_rows, order[open_rows, done]]
            open_rows = open_rows[rest * (1 + ROUNDING) > scores[open_rows]]
    return index, scores


def _best_in_tiles(
    product: ProductMap, rows: Int[Tensor, " n"], tiles: Int[Tensor, "n t"], searched: Sequence[int]
) -> tuple[Int[Tensor, "n d"], Float[Tensor, " n"]]:
    """Best cell of each landmark within some tiles, and its product."""
    grid = [-(-cells // TILE) for cells in searched]
    size = [min(TILE, cells) for cells in searched]
    last = torch.tensor([cells - length for cells, length in zip(searched, size, strict=True)], device=tiles.device)
    # The last tile of an axis is moved inside; it then shares cells with its neighbour, which does no harm.
    starts = torch.minimum(unravel(tiles.flatten(), grid) * TILE, last)
    windows = product.windows(rows.repeat_interleave(tiles.shape[1]), starts, size).unflatten(0, tiles.shape)
    values, flat = windows.flatten(1).max(dim=1)
    cells = windows[0, 0].numel()
    start = starts.unflatten(0, tiles.shape)[torch.arange(len(rows), device=rows.device), flat // cells]
    return start + unravel(flat % cells, size), values


def cells_inside(cells: Sequence[int], stride: int, shape: Sequence[int] | None) -> list[int]:
    """Number of cells along every axis whose centre lies inside an image of ``shape`` voxels; at least one.

    Example:
        >>> cells_inside([4, 4], 2, [8, 5])
        [4, 2]
    """
    if shape is None:
        return list(cells)
    return [max(1, min(n, (2 * length - 1 + stride) // (2 * stride))) for n, length in zip(cells, shape, strict=True)]


def unravel(index: Int[Tensor, "*n"], shape: Sequence[int]) -> Int[Tensor, "*n d"]:
    """Flat index to index per axis, shape (..., D)."""
    return torch.stack(torch.unravel_index(index, tuple(shape)), dim=-1)
