"""Grids of cells, masks of them and exogenous values that several test files share."""

import math

import torch

from medpixcl.correspondence import (
    Cells,
    ExogenousChannel,
    PooledExogenous,
    Positives,
    cells_of_affine,
    cells_of_boxes,
    positive_mask,
    positive_weights,
)

SQUARE = (0, 0, 1, 1)
NAN = math.nan

# Corners (x0, y0, x1, y1) of the query and the key crop, and the positives (query cell, key cell) of a 2 x 2 grid.
GOLDEN = {
    "same": (SQUARE, SQUARE, {(0, 0), (1, 1), (2, 2), (3, 3)}),
    "shifted": ((0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5), {(1, 0), (3, 2)}),
    "shifted and mirrored": ((0, 0, 0.5, 0.5), (0.75, 0, 0.25, 0.5), {(1, 1), (3, 3)}),
    "zoom": (SQUARE, (0, 0, 0.5, 0.5), {(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 3), (2, 2), (2, 3)}),
    "flat": ((0, 0, 1, 0.5), (0, 0, 1, 0.5), {(i, j) for i in range(4) for j in (i, (i + 2) % 4)}),
    "disjoint": ((0, 0, 0.25, 0.25), (0.75, 0.75, 1, 1), set()),
}


def corners(box):
    """Low and high corner in array order of corners in (x, y)."""
    return (box[1], box[0]), (box[3], box[2])


def boxed(low, high, shape) -> Cells:
    return cells_of_boxes(torch.tensor([low], dtype=torch.float32), torch.tensor([high], dtype=torch.float32), shape)


def mask_of(query: Cells, key: Cells, threshold=0.7, metric="mm"):
    return positive_mask(*(query.positions, key.positions, query.edges, key.edges), threshold=threshold, metric=metric)


def pairs(mask: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(pair) for pair in mask[0].nonzero().tolist()}


def known(values, *, batch: int = 1) -> PooledExogenous:
    """One value a cell, NaN where missing."""
    tensor = torch.tensor(values, dtype=torch.float32).expand(batch, 1, -1)
    return PooledExogenous(tensor.nan_to_num(), tensor[:, 0].isfinite(), torch.zeros(tensor[:, 0].shape))


def filtered(query: Cells, key: Cells, channel: ExogenousChannel, own, other, **options) -> Positives:
    given = {"channels": [channel], "query_exogenous": [own], "key_exogenous": [other]}
    return positive_weights(query, key, **(given | options))


def random_cells(dims: int, *, seed: int = 0, shape=(3, 4, 2)) -> Cells:
    """A turned and sheared grid somewhere."""
    generator = torch.Generator().manual_seed(seed)
    affine = torch.eye(dims + 1).repeat(2, 1, 1)
    affine[:, :-1] += 0.3 * torch.randn(2, dims, dims + 1, generator=generator)
    return cells_of_affine(affine, shape[:dims], 2)
