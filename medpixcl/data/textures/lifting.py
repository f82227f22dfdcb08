"""Turn a picture into a volume whose slices show it bent in different ways."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.data.textures.fields import check_shape

CELL = 8.0
"""Distance in voxels between the control points of the displacement."""


def lift_picture(
    picture: Float[Tensor, "c h w"],
    shape: Sequence[int],
    random: np.random.Generator,
    *,
    warp: float = 4.0,
) -> Float[Tensor, "c x y z"]:
    """Fill a volume with a picture that is bent by a displacement changing with depth.

    Equal slices would have no gradient along depth, and the depth gradient of a mixed volume would reveal the target
    alone, scaled by its opacity. The displacement is a trilinear field between random control points, so neighbouring
    slices differ by about ``warp / CELL`` voxels.

    Args:
        picture: Picture with channels first.
        shape: Shape of the volume; the first two axes are those of a slice, cut from the picture at a random position.
        random: Source of all random numbers.
        warp: Standard deviation of the displacement at a control point in voxels.

    Raises:
        ValueError: If the picture is smaller than a slice, or the shape is not that of a volume.
    """
    sizes = check_shape(shape)
    if len(sizes) != 3:
        raise ValueError(f"a picture is lifted to three dimensions; the shape given is {sizes}.")
    rows, columns, depth = sizes
    height, width = picture.shape[1:]
    if height < rows or width < columns:
        raise ValueError(
            f"the picture is {height} x {width}, smaller than a slice of {rows} x {columns}; enlarge it first."
        )
    top, left = (int(random.integers(room + 1)) for room in (height - rows, width - columns))
    nodes = [max(round(size / CELL) + 1, 2) for size in sizes]
    control = torch.from_numpy(random.standard_normal((1, 2, *nodes)) * warp).float()
    moved = F.interpolate(control, sizes, mode="trilinear", align_corners=True)[0]
    row = moved[0] + top + torch.arange(rows).view(-1, 1, 1)
    column = moved[1] + left + torch.arange(columns).view(1, -1, 1)
    grid = torch.stack([2 * column / max(width - 1, 1) - 1, 2 * row / max(height - 1, 1) - 1], dim=-1)
    slices = F.grid_sample(
        picture.float()[None].expand(depth, -1, -1, -1),
        grid.permute(2, 0, 1, 3),
        padding_mode="reflection",
        align_corners=True,
    )
    return slices.permute(1, 2, 3, 0).contiguous()
