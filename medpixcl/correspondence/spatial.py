"""PixPro's positives: cells whose centres are nearer than a share of the cell diagonal."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def threshold_3d(threshold: float = 0.7) -> float:
    """Convert a 2D threshold to 3D, keeping its radius in bins: ``T * sqrt(2/3)``; ours, not PixPro's.

    The threshold is relative to the diagonal, so its radius is ``T * sqrt(D)`` bins: 0.7 in 3D would admit the six face
    neighbours of a cell.

    Example:
        >>> round(threshold_3d(0.7), 4)
        0.5715
    """
    return threshold * (2 / 3) ** 0.5


@torch.no_grad()
def positive_mask(
    query_positions: Float[Tensor, "b n d"],
    key_positions: Float[Tensor, "b m d"],
    query_cell: Float[Tensor, "b d d"],
    key_cell: Float[Tensor, "b d d"],
    *,
    threshold: float | int,
    metric: Literal["mm", "bins"] = "mm",
    query_valid: Bool[Tensor, "b n"] | None = None,
    key_valid: Bool[Tensor, "b m"] | None = None,
) -> Bool[Tensor, "b n m"]:
    """Find positives between the cells of two views: ``|p_i - p'_j| / max(diagonal, diagonal') < T``, strictly.

    Positions in mm account for crops, flips, rotations and anisotropic voxels. Do not choose T equal to a distance
    between cells of one lattice (0.7071 in 2D; 0.577, 0.816, 1 in 3D), where rounding would decide.

    Args:
        query_positions: Centres of the query view's cells, shape (B, N, D).
        key_positions: Centres of the key view's cells, shape (B, M, D), same unit and frame.
        query_cell: Edge vectors of a query cell as columns, shape (B, D, D), same unit; the diagonal is the root of
            the sum of their squares.
        key_cell: Edge vectors of a key cell as columns, shape (B, D, D), same unit.
        threshold: Threshold T, a share of the diagonal; 0.7 in PixPro, see :func:`threshold_3d`.
        metric: Unit of the distance. ``mm``: the formula above. ``bins`` (ours): every offset is measured in cells
            along the edges of the view where it is shorter, and divided by sqrt(D). Both are equal for cubic cells;
            with flat cells the neighbourhood of ``bins`` is flat, too.
        query_valid: Mask that is False for query cells that are never positives (padding), shape (B, N).
        key_valid: Mask that is False for key cells that are never positives (padding), shape (B, M).

    Returns:
        True where positive, shape (B, N, M).

    Raises:
        ValueError: If the threshold is not positive or the metric is unknown.

    Reference: arXiv 2011.10043, equation 1.

    Example:
        >>> centres = torch.tensor([[[0.5], [1.5]]])
        >>> positive_mask(centres, centres + 0.4, torch.ones(1, 1, 1), torch.ones(1, 1, 1), threshold=0.7)
        tensor([[[ True, False],
                 [ True,  True]]])
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; expected a positive share of the cell diagonal, such as 0.7.")
    if metric not in ("mm", "bins"):
        raise ValueError(f"metric is {metric!r}; expected 'mm' or 'bins'.")
    points, keys, edges, key_edges = map(wide, (query_positions, key_positions, query_cell, key_cell))
    with torch.autocast(points.device.type, enabled=False):
        distance = _in_bins if metric == "bins" else _in_diagonals
        mask = distance(points, keys, edges, key_edges) < threshold
    if query_valid is not None:
        mask &= query_valid[:, :, None]
    if key_valid is not None:
        mask &= key_valid[:, None]
    return mask


def wide(values: Tensor) -> Tensor:
    """Convert to float32 if narrower."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def distances(first: Float[Tensor, "b n c"], second: Float[Tensor, "b m c"]) -> Float[Tensor, "b n m"]:
    """Compute Euclidean distances from differences: scalar products would lose digits far from the origin."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _in_diagonals(points: Tensor, keys: Tensor, edges: Tensor, key_edges: Tensor) -> Tensor:
    diagonals = [torch.linalg.vector_norm(view, dim=(-2, -1)) for view in (edges, key_edges)]
    return distances(points, keys).div_(torch.maximum(*diagonals)[:, None, None])


def _in_bins(points: Tensor, keys: Tensor, edges: Tensor, key_edges: Tensor) -> Tensor:
    measured = []
    for view in (edges, key_edges):
        inverse = torch.linalg.pinv(view).mT  # an axis without extent has no bins
        axes = (torch.linalg.vector_norm(view, dim=-2) > 0).sum(-1)
        measured.append(distances(points @ inverse, keys @ inverse).div_(axes.sqrt()[:, None, None]))
    return torch.minimum(*measured)
