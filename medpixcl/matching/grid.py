"""The grid in which landmarks are searched: the cells of the finest level, and their positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel, voxel_to_cell


@dataclass(frozen=True)
class CellGrid:
    """Cells of a feature grid in mm along the array axes; the centre of the first voxel is 0 mm.

    Attributes:
        shape: Number of cells along every axis.
        stride: Number of voxels per cell.
        spacing: Size of a voxel in mm along every axis.
    """

    shape: tuple[int, ...]
    stride: int
    spacing: tuple[float, ...]

    @property
    def cell_mm(self) -> float:
        """Size of a cell along its shortest axis."""
        return self.stride * min(self.spacing)

    def to_mm(self, cells: Float[Tensor, "*b d"] | Int[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Position in mm of cell indices, which need not be whole."""
        return cell_to_voxel(cells.float(), self.stride) * torch.as_tensor(self.spacing).to(cells.device)

    def axis_mm(self, cells: Float[Tensor, "*n"] | Int[Tensor, "*n"], axis: int) -> Float[Tensor, "*n"]:
        """Position in mm of cell indices along one axis."""
        return cell_to_voxel(cells.float()[..., None], self.stride)[..., 0] * self.spacing[axis]

    def to_cells(self, mm: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Inverse of :meth:`to_mm`."""
        return voxel_to_cell(mm / torch.as_tensor(self.spacing).to(mm), self.stride)

    def clamped_starts(self, centres: Float[Tensor, "k d"], size: Sequence[int]) -> Int[Tensor, "k d"]:
        """First cell of windows of ``size`` around cell positions, moved as far as needed to lie inside the grid."""
        last = torch.tensor([n - length for n, length in zip(self.shape, size, strict=True)], device=centres.device)
        half = torch.tensor([length // 2 for length in size], device=centres.device)
        return torch.minimum((centres.round().long() - half).clamp_min(0), last)
