"""Exact pairs of pixels in two views, by their physical positions.

The coordinate map gives the position in mm of a pixel drawn in the query view; the inverse affine of the anchor view
gives its sub-pixel place there. The pairs are exact in any dimension, at a cost linear in the number of pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._typing import PointsMM, PointsVoxel
from medpixcl.coordinates import inside, mm_to_voxel

# Linear interpolation with padding leaves a validity below one at the border; such a position is not exact.
FULLY_VALID = 1 - 1e-4


@dataclass(frozen=True)
class PixelPairs:
    """Pixels of the query view and the places of the same anatomy in the anchor view.

    Attributes:
        query: Voxels in the query view, shape (B, N, D), array order.
        positive: Voxels in the anchor view, not rounded, shape (B, N, D), array order.
        position_mm: Physical positions in mm, shape (B, N, D).
        valid: True where both views show the position, shape (B, N).
    """

    query: PointsVoxel
    positive: PointsVoxel
    position_mm: PointsMM
    valid: Bool[Tensor, "b n"]


def correspond(
    coords: Float[Tensor, "b d1 *v"],
    pixels: Float[Tensor, "b n d"],
    anchor_affine: Float[Tensor, "b d1 d1"],
    anchor_shape: tuple[int, ...],
) -> PixelPairs:
    """Find the pairs of given pixels of the query view.

    Args:
        coords: Coordinate map of the query view (positions in mm and validity), shape (B, D+1, *view).
        pixels: Whole pixels of the query view, shape (B, N, D), array order.
        anchor_affine: Matrix from voxels of the anchor view to mm, shape (B, D+1, D+1).
        anchor_shape: Spatial shape of the anchor view.

    Returns:
        Pairs; a pair whose position is padding or outside the anchor view is not valid.
    """
    index = pixels.round().long()
    strides = torch.tensor(coords.stride()[2:], device=coords.device)
    if not coords.is_contiguous():
        return correspond(coords.contiguous(), pixels, anchor_affine, anchor_shape)
    flat = (index * strides).sum(-1)
    values = coords.flatten(2).gather(2, flat[:, None].expand(-1, coords.shape[1], -1)).mT
    mm, seen = values[..., :-1], values[..., -1] >= FULLY_VALID
    positive = mm_to_voxel(mm.double(), anchor_affine.double()).float()
    return PixelPairs(query=pixels, positive=positive, position_mm=mm, valid=seen & inside(positive, anchor_shape))


def overlap(
    coords: Float[Tensor, "b d1 *v"], anchor_affine: Float[Tensor, "b d1 d1"], anchor_shape: tuple[int, ...]
) -> Bool[Tensor, "b 1 *v"]:
    """True for the pixels of the query view that have a valid partner in the anchor view."""
    mm = coords[:, :-1].flatten(2).mT
    within = inside(mm_to_voxel(mm, anchor_affine.to(mm)), anchor_shape)
    return (within & (coords[:, -1].flatten(1) >= FULLY_VALID)).view(coords.shape[0], 1, *coords.shape[2:])


def draw_pixels(
    weights: Float[Tensor, "b 1 *v"], number: int, *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
    """Draw pixels without repetition, with probability by weight.

    The method is weighted sampling without replacement by the largest ``log w + Gumbel noise`` (Efraimidis and
    Spirakis, 2006).

    Args:
        weights: Non-negative weights, shape (B, 1, *view); pixels of weight zero are never drawn.
        number: Number of pixels per image.
        generator: Source of random numbers, on any device; with one on the CPU, CPU and GPU draw the same pixels.

    Returns:
        Pixels, shape (B, N, D) in array order, and whether each was really drawn, shape (B, N): with fewer pixels of
        positive weight than ``number`` the rest is marked False.

    Raises:
        ValueError: If the view has fewer pixels than asked for.
    """
    flat = weights.flatten(1)
    if number > flat.shape[1]:
        raise ValueError(f"cannot draw {number} pixels from a view of {flat.shape[1]}: ask for fewer or enlarge it")
    source = flat.device if generator is None else generator.device
    noise = torch.empty(flat.shape, dtype=flat.dtype, device=source).exponential_(generator=generator).to(flat.device)
    keys = torch.where(flat > 0, flat.log() - noise.log(), -torch.inf)
    best, index = keys.topk(number, dim=1)
    pixels = torch.stack(torch.unravel_index(index, weights.shape[2:]), dim=-1)
    return pixels.to(weights.dtype), best > -torch.inf
