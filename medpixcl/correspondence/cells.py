"""Positions of the cells of a feature grid, in mm or in the unit square of the original PixPro."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from monai.networks.layers.factories import Pool
from torch import Tensor

from medpixcl.coordinates import apply_affine, cell_to_voxel, voxel_positions

Stride = int | Sequence[int]


class Cells(NamedTuple):
    """Cells of the feature grids of a batch, in array order.

    Attributes:
        positions: Centres of the cells, shape (B, N, D), in mm or any other unit.
        edges: Edge vectors of a cell as columns, shape (B, D, D), in the same unit; negative where mirrored.
        valid: True where a cell shows the image and not padding, shape (B, N).
    """

    positions: Tensor
    edges: Tensor
    valid: Tensor

    def at(self, index: Tensor) -> "Cells":
        """Select cells by an index of shape (B, A)."""
        chosen = index.unsqueeze(-1).expand(-1, -1, self.positions.shape[-1])
        return Cells(self.positions.gather(1, chosen), self.edges, self.valid.gather(1, index))


def cells_of_affine(affine: Float[Tensor, "b d1 d1"], shape: Sequence[int], stride: Stride) -> Cells:
    """Compute the cells of undeformed views: exact centres, ``affine @ ((i + 1/2) * stride - 1/2)``.

    Args:
        affine: Matrix from voxels of the view to mm, shape (B, D+1, D+1).
        shape: Number of cells along each axis.
        stride: Voxels per cell; one number, or one for each axis.

    Example:
        >>> cells_of_affine(torch.eye(3)[None], (1, 2), 4).positions
        tensor([[[1.5000, 1.5000],
                 [1.5000, 5.5000]]])
    """
    centres = cell_to_voxel(voxel_positions(shape, device=affine.device).flatten(0, -2), stride)
    positions = apply_affine(affine, centres.to(affine.dtype).expand(affine.shape[0], -1, -1))
    return Cells(positions, _edges(affine, stride), torch.ones_like(positions[..., 0], dtype=torch.bool))


def cells_of_map(coords: Float[Tensor, "b d1 *v"], affine: Float[Tensor, "b d1 d1"], stride: Stride) -> Cells:
    """Compute the cells of any view, also deformed: mean position of their voxels; exact where affine.

    Args:
        coords: Coordinate map (positions in mm and validity), shape (B, D+1, *view).
        affine: Matrix from voxels of the view to mm without the deformation, which gives the size of a cell, shape
            (B, D+1, D+1).
        stride: Voxels per cell.

    Returns:
        Cells; a cell is valid if at least half of it shows the image. If the size of a view is not a multiple of the
        stride, its last cells cover fewer voxels.
    """
    pool = Pool[Pool.AVG, coords.ndim - 2]
    kernel = stride if isinstance(stride, int) else tuple(stride)
    pooled = pool(kernel, kernel, ceil_mode=True)(coords.detach().float()).flatten(2)
    return Cells(pooled[:, :-1].mT, _edges(affine.float(), stride), pooled[:, -1] >= 0.5)


def cells_of_boxes(low: Float[Tensor, "b d"], high: Float[Tensor, "b d"], shape: Sequence[int]) -> Cells:
    """Cells of crop boxes: bin ``b = (high - low) / n``, centre ``low + (i + 1/2) * b``, as in PixPro's code.

    Args:
        low: First corner of each box, array order, shape (B, D).
        high: Opposite corner, shape (B, D); less than ``low`` along a mirrored axis, whose bins are then negative.
        shape: Number of cells along each axis.

    Example:
        >>> cells_of_boxes(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]]), (1, 2)).positions
        tensor([[[ 0.5000, -0.2500],
                 [ 0.5000, -0.7500]]])
    """
    bins = (high - low) / torch.as_tensor(list(shape)).to(low)
    index = voxel_positions(shape, device=low.device).flatten(0, -2).to(low) + 0.5
    positions = low[:, None] + index * bins[:, None]
    return Cells(positions, torch.diag_embed(bins), torch.ones_like(positions[..., 0], dtype=torch.bool))


def draw_cells(
    query: Cells,
    key: Cells,
    number: int,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Int[Tensor, "b a"]:
    """Draw cells of the query view without repetition, first those that the key view shows too.

    A small number keeps the mask of a large grid small: 512 of 24^3 cells against all take 28 MB per image.

    Args:
        query: Cells to draw from.
        key: Cells of the other view.
        number: Number of cells per image (A); if there are no more, all are returned in order.
        generator: Source of random numbers, on any device; or one for each image, whose cells then do not depend on
            the others.

    Returns:
        Indices of the drawn cells, shape (B, A), ascending.
    """
    count = query.positions.shape[1]
    if number >= count:
        return torch.arange(count, device=query.positions.device).expand(len(query.positions), -1)
    if isinstance(generator, Sequence):
        rows = [torch.rand(count, generator=one, device=one.device) for one in generator]
        noise = torch.stack(rows).to(query.positions.device)
    else:
        source = query.positions.device if generator is None else generator.device
        noise = torch.rand(query.valid.shape, generator=generator, device=source).to(query.positions.device)
    return (noise + (query.valid & _covered(query, key))).topk(number, dim=1).indices.sort(dim=1).values


def _covered(query: Cells, key: Cells) -> Tensor:
    """True for centres within the box that the other view's cells fill, seen along its own axes."""
    inverse = torch.linalg.pinv(key.edges).mT
    origin = key.positions[:, :1]
    placed, grid = (query.positions - origin) @ inverse, (key.positions - origin) @ inverse
    low, high = grid.amin(1, keepdim=True) - 0.5, grid.amax(1, keepdim=True) + 0.5
    return ((placed >= low) & (placed <= high)).all(-1)


def _edges(affine: Tensor, stride: Stride) -> Tensor:
    return affine[..., :-1, :-1] * torch.as_tensor(stride).to(affine)
