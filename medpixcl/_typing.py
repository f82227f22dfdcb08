"""Array types with named axes, checked at run time in the tests.

Axes: ``b`` batch, ``c`` channels, ``*s`` the spatial axes in array order, ``k`` points, ``d`` their number of
coordinates (2 or 3).
"""

from collections.abc import Callable
from os import PathLike
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

AnyPath: TypeAlias = str | PathLike[str]
"""Path as a caller gives it."""

Array = Tensor | np.ndarray
"""Values in memory, on any device."""

Image = Float[Tensor, "b c *s"]
"""Batch of images: (B, C, H, W) or (B, C, D, H, W)."""

Mask = Bool[Tensor, "b 1 *s"]
"""True where a pixel counts."""

ClassMap = Int[Tensor, "b 1 *s"]
"""Class of every pixel: 0 low, 1 medium, 2 high informativeness."""

Embedding = Float[Tensor, "b c *s"]
"""One vector of length C for every cell of a feature grid."""

Heatmaps = Float[Tensor, "b k *s"]
"""One map per landmark."""

PointsVoxel = Float[Tensor, "*b k d"]
"""Voxel indices in array order; the centre of the first voxel is 0."""

PointsMM = Float[Tensor, "*b k d"]
"""Physical positions in mm, in the axis order and frame of their affine (RAS+ inside the package)."""

Affine = Float[Tensor, "*b d1 d1"]
"""Homogeneous matrix, (D+1, D+1)."""

Embed = Callable[[Tensor], list[Tensor]]
"""Function from images (B, C, *spatial) to level maps (B, E, *cells), finest first."""

Number = float | int
"""A real number; JSON writes whole ones without a point."""

Progress = Callable[[int, int], None]
"""Function called with the number of finished items and their total."""

StepProgress = Callable[[str, int, int], None]
"""Function called with the name of the step, the number of finished items and their total."""
