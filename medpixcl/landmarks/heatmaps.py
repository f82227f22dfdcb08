"""Landmarks as heatmaps on a feature grid, and back: exact between the cells, in 2D and 3D.

A landmark at voxel ``p`` becomes the separable Gaussian ``exp(-|(c - p) * spacing|^2 / (2 sigma^2))`` over the centres
``c`` of the cells, ``sigma`` in mm. Nothing is rounded to a cell or voxel (MONAI's ``GenerateHeatmap`` does, which
costs up to half a voxel). Landmarks that are missing (NaN), or lie beyond the outer edge of the grid, become zeros.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medpixcl._typing import Heatmaps
from medpixcl.coordinates import cell_to_voxel, voxel_to_cell

TINY = 1e-12
"""Least value that a logarithm is taken of, or that a map must sum up to so that something can be found in it."""


def on_grid(points: Float[Tensor, "b k d"], cells: Sequence[int], stride: int) -> Bool[Tensor, "b k"]:
    """True for landmarks with a position within the cells of a grid; NaN is not.

    Args:
        points: Voxel indices in array order, shape (B, K, D).
        cells: Size of the grid, array order.
        stride: Voxels per cell.
    """
    position = voxel_to_cell(points, stride)
    size = position.new_tensor(list(cells))
    return ((position >= -0.5) & (position <= size - 0.5)).all(dim=-1)


def encode_heatmaps(
    points: Float[Tensor, "b k d"],
    cells: Sequence[int],
    *,
    stride: int,
    sigma_mm: float,
    spacing_mm: Sequence[float],
    normalise: bool = True,
) -> Heatmaps:
    """One Gaussian per landmark.

    Args:
        points: Voxel indices in array order, not rounded, shape (B, K, D); NaN where missing.
        cells: Size of the grid, array order.
        stride: Voxels per cell.
        sigma_mm: Standard deviation of the Gaussian.
        spacing_mm: Size of a voxel along each array axis.
        normalise: Every map sums up to one, as the target of a softmax must; otherwise its peak, which lies between
            the cells, has the value one.

    Returns:
        Maps of shape (B, K, *cells); all zero for a landmark that is not on the grid.

    Raises:
        ValueError: If the numbers of axes differ or ``sigma_mm`` is not positive.

    Example:
        >>> encode_heatmaps(torch.tensor([[[0.5]]]), [3], stride=2, sigma_mm=2.0, spacing_mm=[1.0], normalise=False)
        tensor([[[1.0000, 0.6065, 0.1353]]])
    """
    dims = points.shape[-1]
    if not dims == len(cells) == len(spacing_mm):
        raise ValueError(
            f"points have {dims} coordinates, the grid {len(cells)} axes and the spacing {len(spacing_mm)}; "
            "expected the same number"
        )
    if not sigma_mm > 0:
        raise ValueError(f"sigma_mm is {sigma_mm}; expected a positive width in mm")
    there = on_grid(points, cells, stride)
    known = torch.where(there[..., None], points, 0)
    maps = there.to(points)[(..., *[None] * dims)]
    for axis, (count, spacing) in enumerate(zip(cells, spacing_mm, strict=True)):
        centres = cell_to_voxel(torch.arange(count).to(points)[:, None], stride)[:, 0]
        exponents = -((centres - known[..., axis, None]) * (spacing / sigma_mm)).square() / 2
        factor = exponents.softmax(dim=-1) if normalise else exponents.exp()
        maps = maps * factor.view(*factor.shape[:2], *[count if a == axis else 1 for a in range(dims)])
    return maps


def decode_heatmaps(
    maps: Heatmaps,
    *,
    stride: int,
    radius: int = 3,
    method: Literal["expectation", "quadratic"] = "expectation",
    offsets: Float[Tensor, "b k d *s"] | None = None,
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k"]]:
    """Where every map has its peak, between the cells, and how much of the map lies there.

    Args:
        maps: Not negative, shape (B, K, *cells).
        stride: Voxels per cell.
        radius: Cells along each axis, to either side of the greatest one, that make up the peak.
        method: ``expectation``: mean position over the peak, weighted by the map; its error falls with the part of the
            peak that the window holds. ``quadratic``: vertex of the parabola through the logarithms of three cells
            along each axis; exact for a Gaussian, whatever the radius.
        offsets: For each cell, the way from its centre to the landmark, in cells, shape (B, K, D, *cells); then the
            expectation is that of where the cells point to.

    Returns:
        Voxel indices in array order (B, K, D), NaN where a map is empty, and the share of the map's sum within the
        window (B, K), 0 where it is empty.

    Raises:
        ValueError: If the method is unknown, or offsets come with the quadratic one.
    """
    if method not in ("expectation", "quadratic") or (method == "quadratic" and offsets is not None):
        raise ValueError(f"method is {method!r}; expected 'expectation', or 'quadratic' without offsets")
    dims, cells = maps.ndim - 2, maps.shape[2:]
    flat = maps.flatten(0, 1)
    peak = torch.stack(torch.unravel_index(flat.flatten(1).argmax(dim=1), cells), dim=1)
    index, inside = _windows(peak, cells, radius)
    rows = torch.arange(len(flat), device=maps.device).view(-1, *[1] * dims)
    values = flat[(rows, *index)] * inside
    total, mass = flat.flatten(1).sum(dim=1), values.flatten(1).sum(dim=1)
    if method == "quadratic":
        position = refine_peaks(flat.clamp_min(TINY).log(), peak)
    else:
        where = torch.stack(torch.broadcast_tensors(*index), dim=-1).to(maps)
        if offsets is not None:
            where = where + offsets.flatten(0, 1).movedim(1, -1)[(rows, *index)].to(maps)
        position = (values[..., None] * where).flatten(1, -2).sum(dim=1) / mass.clamp_min(TINY)[:, None]
    position = torch.where((total > TINY)[:, None], position, torch.nan)
    shape = maps.shape[:2]
    return cell_to_voxel(position, stride).view(*shape, dims), (mass / total.clamp_min(TINY)).view(shape)


def _windows(
    peak: Int[Tensor, "n d"], cells: Sequence[int], radius: int
) -> tuple[list[Int[Tensor, "n ..."]], Bool[Tensor, "n ..."]]:
    """Index along each axis of the cells around peaks, to broadcast, clamped to the grid, and which lie inside it."""
    dims, steps = len(cells), torch.arange(-radius, radius + 1, device=peak.device)
    inside = torch.ones((), dtype=torch.bool, device=peak.device)
    index = []
    for axis, count in enumerate(cells):
        wanted = (peak[:, axis, None] + steps).view(-1, *[len(steps) if a == axis else 1 for a in range(dims)])
        inside = inside & (wanted >= 0) & (wanted < count)
        index.append(wanted.clamp(0, count - 1))
    return index, inside


def refine_peaks(logs: Float[Tensor, "k ..."], index: Int[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Peak position between cells: vertex of the parabola through the values of three cells along every axis.

    Exact where the logarithm is that of a Gaussian with axes along the grid. A peak at the border stays on its cell
    along that axis.

    Args:
        logs: Logarithms of maps, shape (K, *cells).
        index: Cell of the largest value of every map, shape (K, D).

    Returns:
        Cell positions, shape (K, D), at most half a cell away.
    """
    rows = torch.arange(len(index), device=index.device)
    refined = index.to(logs.dtype)
    for axis, length in enumerate(logs.shape[1:]):
        around = []
        for step in (-1, 0, 1):
            moved = index.clone()
            moved[:, axis] = (moved[:, axis] + step).clamp(0, length - 1)
            around.append(logs[(rows, *moved.unbind(1))])
        before, here, after = around
        curvature = before - 2 * here + after
        inner = (index[:, axis] > 0) & (index[:, axis] < length - 1) & (curvature < 0)
        shift = 0.5 * (before - after) / torch.where(inner, curvature, 1)
        refined[:, axis] += torch.where(inner, shift.clamp(-0.5, 0.5), 0)
    return refined
