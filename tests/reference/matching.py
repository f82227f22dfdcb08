"""Literal product of levels: every similarity map brought to the finest grid cell by cell, multiplied, searched."""

import itertools
import math

import torch
from torch import Tensor


def interpolated(values: Tensor, position: list[float]) -> float:
    """Linear interpolation of a map at a position in its cells, the border value beyond the outermost centres."""
    total = 0.0
    corners = [(math.floor(p), p - math.floor(p)) for p in position]
    for choice in itertools.product((0, 1), repeat=len(position)):
        weight, index = 1.0, []
        for take, (low, share), size in zip(choice, corners, values.shape, strict=True):
            weight *= share if take else 1 - share
            index.append(min(max(low + take, 0), size - 1))
        total += weight * float(values[tuple(index)])
    return total


def product_map(query: list[Tensor], levels: list[Tensor], strides: list[int]) -> Tensor:
    """Product map of one landmark: cosine clamped at 0 in every level, at the centres of the finest cells."""
    shape = levels[0].shape[1:]
    product = torch.ones(shape, dtype=torch.float64)
    for vector, level, stride in zip(query, levels, strides, strict=True):
        similarity = torch.einsum("c,c...->...", vector, level).clamp(min=0)
        for cell in itertools.product(*[range(n) for n in shape]):
            voxel = [(c + 0.5) * strides[0] - 0.5 for c in cell]
            product[cell] *= interpolated(similarity, [(v + 0.5) / stride - 0.5 for v in voxel])
    return product
