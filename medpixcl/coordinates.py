"""The position of a pixel: voxel index, physical mm, ``grid_sample`` coordinate, cell of a feature grid.

Four frames, and the only functions that go between them:

* **voxel**: index in array order (row, column) or (i, j, k); the centre of the first voxel is 0.
* **mm**: ``affine @ voxel``. Inside the package affines are RAS+, as in MONAI; files for people are LPS.
* **grid**: the normalised coordinate of :func:`torch.nn.functional.grid_sample` with ``align_corners=False``,
  last axis in (x, y[, z]) order, so reversed against array order.
* **cell**: index in a feature grid of a given stride; the centre of cell 0 lies at voxel ``(stride - 1) / 2``.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor
from torch.nn import functional as F

from medpixcl._typing import Affine, PointsMM, PointsVoxel


def apply_affine(affine: Affine, points: PointsVoxel) -> PointsMM:
    """Map points by a homogeneous matrix.

    Args:
        affine: Matrix of shape (D+1, D+1), or (B, D+1, D+1) for points of shape (B, K, D).
        points: Points (..., K, D), in the order and unit that ``affine`` expects.

    Returns:
        Mapped points, same shape.

    Example:
        >>> apply_affine(torch.diag(torch.tensor([2.0, 3.0, 1.0])), torch.tensor([[1.0, 1.0]]))
        tensor([[2., 3.]])
    """
    affine = affine.to(points)
    linear, translation = affine[..., :-1, :-1], affine[..., :-1, -1]
    return points @ linear.mT + translation.unsqueeze(-2)


def voxel_to_mm(points: PointsVoxel, affine: Affine) -> PointsMM:
    """Physical position of voxel indices, in the frame of ``affine``."""
    return apply_affine(affine, points)


def mm_to_voxel(points: PointsMM, affine: Affine) -> PointsVoxel:
    """Voxel index (not rounded) of physical positions given in the frame of ``affine``."""
    return apply_affine(torch.linalg.inv(affine.to(points)), points)


def flip_ras_lps(points: PointsMM) -> PointsMM:
    """RAS+ to LPS+ or back: the first two axes change sign. The only place where the package does this.

    A 2D image of rows and columns lies in the plane of the first two axes, so both of its axes change sign.
    """
    return points * points.new_tensor([-1.0, -1.0, 1.0])[: points.shape[-1]]


def spatial_affine(affine: Float[Tensor, "n n"], dims: int) -> Affine:
    """The (D+1, D+1) part of a larger homogeneous matrix that acts on the first ``dims`` axes (MONAI keeps 4 x 4)."""
    keep = [*range(dims), affine.shape[0] - 1]
    return affine[keep][:, keep]


def working_affine(image: MetaTensor) -> Affine:
    """Affine (voxel -> mm), (D+1, D+1) float64, of an image (C, *spatial) in its current state."""
    return spatial_affine(torch.as_tensor(image.affine, dtype=torch.float64), image.ndim - 1)


def working_spacing(image: MetaTensor) -> list[float]:
    """Voxel size in mm along the array axes of an image (C, *spatial) in its current state."""
    return spacing_of(working_affine(image)).tolist()


def image_affine(spacing_mm: Sequence[float]) -> Float[Tensor, "4 4"]:
    """RAS+ affine of a 2D picture without orientation: rows run to the bottom, columns to the right.

    In LPS+, the frame of the files, the pixel (row, column) then lies at (x, y) = (column * s, row * s) mm, which is
    where ITK and 3D Slicer put a PNG.

    Args:
        spacing_mm: Size of a pixel along (row, column) in mm.
    """
    row, column = spacing_mm
    affine = torch.eye(4, dtype=torch.float64)
    affine[:2, :2] = torch.tensor([[0.0, -column], [-row, 0.0]], dtype=torch.float64)
    return affine


def spacing_of(affine: Affine) -> Float[Tensor, "*b d"]:
    """Length in mm of one voxel step along each array axis."""
    return torch.linalg.vector_norm(affine[..., :-1, :-1], dim=-2)


def pixel_for(sides: Sequence[float | int], number: int) -> float:
    """Size of the pixels of which the longest side of an image has a number.

    A long narrow image would have few pixels: its are smaller, so that it has as many as a cube of half the number.

    Args:
        sides: Lengths of the sides; the result has their unit.
        number: Number of pixels along the longest side.

    Example:
        >>> pixel_for([40.0, 30.0], 20), pixel_for([40.0, 2.5], 20)
        (2.0, 1.0)
    """
    return min(max(sides) / number, math.prod(sides) ** (1 / len(sides)) / (number / 2))


def voxel_to_grid(points: PointsVoxel, shape: Sequence[int]) -> Float[Tensor, "*b k d"]:
    """Voxel index to ``grid_sample`` coordinate of an image with spatial ``shape``; the axis order is reversed."""
    size = points.new_tensor(list(shape)).flip(0)
    return points.flip(-1).mul_(2 / size).add_(1 / size - 1)


def voxel_to_cell(points: PointsVoxel, stride: Sequence[int] | int | float) -> PointsVoxel:
    """Voxel index to (not rounded) cell index of a feature grid that covers the image with cells of ``stride``.

    Example:
        >>> voxel_to_cell(torch.tensor([[0.5, 2.5]]), 2)
        tensor([[0., 1.]])
    """
    step = torch.as_tensor(stride).to(points)
    return (points + 0.5) / step - 0.5


def cell_to_voxel(cells: PointsVoxel, stride: Sequence[int] | int | float) -> PointsVoxel:
    """Inverse of :func:`voxel_to_cell`: the voxel position of cell centres."""
    step = torch.as_tensor(stride).to(cells)
    return (cells + 0.5) * step - 0.5


def voxel_positions(shape: Sequence[int], *, device: torch.device | str | None = None) -> Float[Tensor, "*s d"]:
    """Index of every voxel, shape (*spatial, D), float32."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def inside(points: PointsVoxel, shape: Sequence[int]) -> Tensor:
    """True for points between the centres of the first and the last voxel of every axis; shape (..., K).

    Interpolation there needs no voxel from outside. NaN is outside.
    """
    last = points.new_tensor([n - 1 for n in shape])
    within = (points >= 0) & (points <= last)
    return reduce(torch.logical_and, within.unbind(-1))  # faster than all(dim=-1)


def sample_at(image: Float[Tensor, "b c *s"], points: Float[Tensor, "b k d"]) -> Float[Tensor, "b k c"]:
    """Linear interpolation of an image at voxel positions.

    Args:
        image: Image to sample, shape (B, C, *spatial).
        points: Voxel indices in array order, shape (B, K, D); positions outside take the value of the border.

    Returns:
        Values, shape (B, K, C).

    Example:
        >>> sample_at(torch.tensor([[[[0.0, 1.0, 2.0]]]]), torch.tensor([[[0.0, 0.5]]]))
        tensor([[[0.5000]]])
    """
    batch, count, dims = points.shape
    grid = voxel_to_grid(points, image.shape[2:]).to(image.dtype).view(batch, count, *[1] * (dims - 1), dims)
    values = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.flatten(2).mT


def working_voxels(voxels: Tensor, image: MetaTensor) -> Tensor:
    """Voxels of the file's image (K, D) as voxels of the image at the working spacing."""
    original, working = affines_of(image)
    return mm_to_voxel(voxel_to_mm(voxels, original), working)


def original_voxels(voxels: Tensor, image: MetaTensor) -> Tensor:
    """Inverse of :func:`working_voxels`."""
    original, working = affines_of(image)
    return mm_to_voxel(voxel_to_mm(voxels.to(original), working), original)


def affines_of(image: MetaTensor) -> tuple[Tensor, Tensor]:
    """Affines (voxel -> mm) of the image in its file and of the image in its current state."""
    dims = image.ndim - 1
    original = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
    return spatial_affine(original, dims), working_affine(image)
