"""Landmarks as heatmaps on a feature grid, and back: exact between the cells, in 2D and 3D.

A landmark at voxel ``p`` becomes the separable Gaussian ``exp(-|(c - p) * spacing|^2 / (2 sigma^2))`` over the centres
``c`` of the cells, ``sigma`` in mm. Nothing is rounded to a cell or voxel (MONAI's ``GenerateHeatmap`` does, which
costs up to half a voxel). Only the window round a landmark is computed in which the Gaussian is a normal number of the
data type; all else is zero. Landmarks that are missing (NaN), or lie beyond the outer edge of the grid, become zeros.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medpixcl._typing import Heatmaps
from medpixcl.coordinates import cell_to_voxel, voxel_to_cell

ACTIVATIONS = ("softmax", "sigmoid", "none")
TINY = 1e-12
"""Least argument of a logarithm, and least sum of a map that has a peak."""


def on_grid(points: Float[Tensor, "b k d"], cells: Sequence[int], stride: int) -> Bool[Tensor, "b k"]:
    """True for landmarks whose position lies within the cells of a grid; False for NaN.

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
    """Draw one Gaussian per landmark.

    Args:
        points: Voxel indices in array order, not rounded, shape (B, K, D); NaN where missing.
        cells: Size of the grid, array order.
        stride: Voxels per cell.
        sigma_mm: Standard deviation of the Gaussian in mm.
        spacing_mm: Size of a voxel in mm along each array axis.
        normalise: If True, every map sums to one, as the target of a softmax must. If False, its peak, which lies
            between the cells, has the value one.

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
    position = voxel_to_cell(points, stride)
    there = on_grid(points, cells, stride).flatten()
    known = torch.where(there[:, None], position.flatten(0, 1), 0)
    reach = math.sqrt(-2 * math.log(torch.finfo(points.dtype).tiny))
    values, index = there.to(points)[(..., *[None] * dims)], []
    for axis, (count, spacing) in enumerate(zip(cells, spacing_mm, strict=True)):
        wide = [-1 if a == axis else 1 for a in range(dims)]
        cell_sigmas = stride * spacing / sigma_mm
        inside = _cells_near(known[:, axis], math.ceil(reach / cell_sigmas), count)
        exponents = -((inside - known[:, axis, None]) * cell_sigmas).square() / 2
        factor = exponents.softmax(dim=1) if normalise else exponents.exp()
        values = values * factor.view(len(known), *wide)
        index.append(inside.view(len(known), *wide))
    rows = torch.arange(len(known), device=points.device).view(-1, *[1] * dims)
    maps = values.new_zeros(len(known), *cells).index_put((rows, *index), values)
    return maps.unflatten(0, points.shape[:2])


def _cells_near(position: Float[Tensor, " n"], reach: int, count: int) -> Int[Tensor, "n w"]:
    """The cells of an axis that lie within ``reach`` of positions, as many for each; near the border also others."""
    wanted = min(2 * reach + 2, count)
    starts = (position.detach().floor().long() - reach).clamp(0, count - wanted)
    return starts[:, None] + torch.arange(wanted, device=position.device)


def activate_heatmaps(output: Heatmaps, activation: str) -> Heatmaps:
    """Convert a network's output to non-negative maps.

    Args:
        output: Output of the network, shape (B, K, *cells).
        activation: Name of the activation: ``softmax`` over the cells for networks trained with cross-entropy,
            ``sigmoid`` for binary cross-entropy, ``none`` for a regression, which sets negative values to 0.

    Raises:
        ValueError: If the activation is unknown.

    Example:
        >>> activate_heatmaps(torch.tensor([[[0.0, 0.0, -1.0, 2.0]]]), "none")
        tensor([[[0., 0., 0., 2.]]])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}")
    if activation == "softmax":
        return output.flatten(2).softmax(dim=2).view(output.shape)
    return output.sigmoid() if activation == "sigmoid" else output.clamp_min(0)


def decode_heatmaps(
    maps: Heatmaps,
    *,
    stride: int,
    radius: int = 3,
    method: Literal["expectation", "quadratic", "argmax"] = "expectation",
    offsets: Float[Tensor, "b k d *s"] | None = None,
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k"]]:
    """Locate the peak of every map between the cells, and compute the share of the map that lies there.

    Args:
        maps: Non-negative maps, shape (B, K, *cells).
        stride: Voxels per cell.
        radius: Number of cells on each side of the greatest one, along each axis, that make up the peak.
        method: Way of locating the peak. ``expectation``: mean position over the peak, weighted by the map; its error
            falls with the part of the peak inside the window. ``quadratic``: vertex of the
            parabola through the logarithms of three cells along each axis; exact for a Gaussian, whatever the radius.
            ``argmax``: centre of the greatest cell.
        offsets: Vector in cells from each cell's centre to the landmark, shape (B, K, D, *cells); the expectation is
            then taken over the positions that the cells point to.

    Returns:
        Voxel indices in array order (B, K, D), NaN where a map is empty or holds NaN, and the share of the map's sum
        within the window (B, K), 0 where it is empty.

    Raises:
        ValueError: If the method is unknown, or offsets are given with a method other than the expectation.
    """
    if method not in ("expectation", "quadratic", "argmax") or (method != "expectation" and offsets is not None):
        raise ValueError(
            f"method is {method!r}; expected 'expectation', or 'quadratic' or 'argmax' and these without offsets"
        )
    flat = maps.flatten(0, 1)
    peaks = _peak_windows(flat, radius)
    mass = peaks.values.flatten(1).sum(dim=1)
    if method == "argmax":
        position = peaks.cell.to(maps)
    elif method == "quadratic":
        position = refine_peaks(flat, peaks.cell, take_logarithm=True)
    else:
        where = torch.stack(torch.broadcast_tensors(*peaks.places), dim=-1).to(maps)
        if offsets is not None:
            where = where + offsets.flatten(0, 1).movedim(1, -1)[(peaks.rows, *peaks.places)].to(maps)
        position = (peaks.values[..., None] * where).flatten(1, -2).sum(dim=1) / mass.clamp_min(TINY)[:, None]
    position = torch.where((peaks.total > TINY)[:, None], position, torch.nan)
    share = torch.where(peaks.total > TINY, mass / peaks.total.clamp_min(TINY), 0)
    return cell_to_voxel(position, stride).unflatten(0, maps.shape[:2]), share.view(maps.shape[:2])


def heatmap_covariance(
    maps: Heatmaps, *, stride: int, spacing_mm: Sequence[float], radius: int = 3
) -> Float[Tensor, "b k d d"]:
    """Compute the spread of every map around its peak: second central moments of a window, in mm^2.

    Values outside the window are ignored: a Gaussian whose standard deviation is a third of the window's half width
    comes out 3 % too small along an axis, at a quarter 0.1 %.

    Args:
        maps: Non-negative maps, shape (B, K, *cells).
        stride: Voxels per cell.
        spacing_mm: Size of a voxel in mm along each array axis.
        radius: Number of cells on each side of the greatest one, along each axis, that make up the window.

    Returns:
        Covariances along the array axes, shape (B, K, D, D); 0 where the window holds a single cell, NaN where a map is
        empty or holds NaN.

    Raises:
        ValueError: If the spacing has another number of axes than the maps.

    Example:
        >>> maps = encode_heatmaps(torch.tensor([[[9.3]]]), [20], stride=1, sigma_mm=2.0, spacing_mm=[2.0])
        >>> heatmap_covariance(maps, stride=1, spacing_mm=[2.0], radius=6)
        tensor([[[[4.]]]])
    """
    dims = maps.ndim - 2
    if len(spacing_mm) != dims:
        raise ValueError(f"the maps have {dims} axes and the spacing {len(spacing_mm)}; expected the same number")
    peaks = _peak_windows(maps.flatten(0, 1), radius)
    every = tuple(range(1, dims + 1))
    weights = peaks.values / peaks.values.sum(dim=every, keepdim=True)
    away = []
    for cells, spacing in zip(peaks.places, spacing_mm, strict=True):
        place = cells.to(maps) * (stride * spacing)
        away.append(place - (weights * place).sum(dim=every, keepdim=True))
    moments = [(weights * one * other).sum(dim=every) for one in away for other in away]
    covariance = torch.stack(moments, dim=-1).unflatten(-1, (dims, dims))
    covariance = torch.where((peaks.total > TINY)[:, None, None], covariance, torch.nan)
    return covariance.unflatten(0, maps.shape[:2])


def expected_positions(maps: Heatmaps, *, stride: int) -> Float[Tensor, "b k d"]:
    """Compute the mean position over every whole map, weighted by it: differentiable, for use in a loss.

    Args:
        maps: Non-negative maps, shape (B, K, *cells).
        stride: Voxels per cell.

    Returns:
        Voxel indices in array order (B, K, D); the first cell where a map is empty.

    Reference: Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, arXiv 1801.07372.
    """
    dims = maps.ndim - 2
    total = maps.flatten(2).sum(dim=2).clamp_min(TINY)
    along = []
    for axis, count in enumerate(maps.shape[2:]):
        others = [2 + other for other in range(dims) if other != axis]
        profile = maps.sum(dim=others) if others else maps
        along.append((profile * torch.arange(count).to(maps)).sum(dim=2) / total)
    return cell_to_voxel(torch.stack(along, dim=-1), stride)


class _Peaks(NamedTuple):
    """Windows of N maps around their greatest cells."""

    cell: Int[Tensor, "n d"]
    rows: Int[Tensor, "n ..."]
    places: list[Int[Tensor, "n ..."]]  # along each axis, to broadcast, clamped to the grid
    values: Float[Tensor, "n ..."]  # 0 outside the grid
    total: Float[Tensor, " n"]  # of the whole map


def _peak_windows(flat: Float[Tensor, "n ..."], radius: int) -> _Peaks:
    cells, dims = flat.shape[1:], flat.ndim - 1
    peak = torch.stack(torch.unravel_index(flat.flatten(1).argmax(dim=1), cells), dim=1)
    steps = torch.arange(-radius, radius + 1, device=flat.device)
    inside = torch.ones((), dtype=torch.bool, device=flat.device)
    index = []
    for axis, count in enumerate(cells):
        wanted = (peak[:, axis, None] + steps).view(-1, *[len(steps) if a == axis else 1 for a in range(dims)])
        inside = inside & (wanted >= 0) & (wanted < count)
        index.append(wanted.clamp(0, count - 1))
    rows = torch.arange(len(flat), device=flat.device).view(-1, *[1] * dims)
    return _Peaks(peak, rows, index, flat[(rows, *index)] * inside, flat.flatten(1).sum(dim=1))


def refine_peaks(
    logs: Float[Tensor, "k ..."], index: Int[Tensor, "k d"], *, take_logarithm: bool = False
) -> Float[Tensor, "k d"]:
    """Refine peaks between cells: vertex of the parabola through the values of three cells along every axis.

    The result is exact for the logarithm of a Gaussian with axes along the grid. A peak at the border stays on its
    cell along that axis.

    Args:
        logs: Logarithms of maps, shape (K, *cells).
        index: Cell of the largest value of every map, shape (K, D).
        take_logarithm: Whether ``logs`` holds the maps themselves, whose logarithm is then taken where needed.

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
            value = logs[(rows, *moved.unbind(1))]
            around.append(value.clamp_min(TINY).log() if take_logarithm else value)
        before, here, after = around
        curvature = before - 2 * here + after
        inner = (index[:, axis] > 0) & (index[:, axis] < length - 1) & (curvature < 0)
        shift = 0.5 * (before - after) / torch.where(inner, curvature, 1)
        refined[:, axis] += torch.where(inner, shift.clamp(-0.5, 0.5), 0)
    return refined
