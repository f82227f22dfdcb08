"""Embeddings that are known everywhere: waves over physical positions, so that any warp of an image is exact."""

import torch
from torch import Tensor
from torch.nn import functional as F


class WaveField:
    """Unit vectors at every position in mm, one kind per level; the waves of a level are some of its cells long.

    Args:
        dims: 2 or 3.
        strides: Voxels per cell of the levels, finest first, for voxels of 1 mm.
        seed: Of the waves.
        length: Of a vector.
    """

    def __init__(self, dims: int, strides: list[int], *, seed: int = 0, length: int = 24) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.strides = strides
        self.waves = [torch.randn(dims, length, generator=generator) / (1.5 * stride) for stride in strides]
        self.phases = [6.3 * torch.rand(length, generator=generator) for _ in strides]

    def at(self, mm: Tensor, level: int) -> Tensor:
        """Vectors (..., E) at positions (..., D)."""
        waves, phases = self.waves[level].to(mm), self.phases[level].to(mm)
        return F.normalize(torch.cos(mm @ waves + phases), dim=-1)

    def levels(
        self, shape: tuple[int, ...], spacing: list[float], matrix: Tensor | None = None, shift: Tensor | None = None
    ) -> list[Tensor]:
        """Maps (1, E, *cells) of an image in which the point p of the template lies at ``p @ matrix.T + shift`` mm."""
        maps = []
        for level, stride in enumerate(self.strides):
            axes = [
                ((torch.arange(-(-n // stride)) + 0.5) * stride - 0.5) * s for n, s in zip(shape, spacing, strict=True)
            ]
            mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
            if matrix is not None and shift is not None:
                mm = (mm - shift) @ torch.linalg.inv(matrix).T
            maps.append(self.at(mm, level).movedim(-1, 0)[None])
        return maps


def turned(dims: int, degrees: float, scale: float) -> Tensor:
    """Matrix of a rotation in the plane of the first two axes, and a scale."""
    angle = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.eye(dims)
    matrix[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return scale * matrix
