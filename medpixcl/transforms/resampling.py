"""Smoothing and linear interpolation in one step along each axis, without copies of the whole image.

A whole volume smoothed by convolutions and then interpolated at a grid of positions takes ten times its own memory.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from monai.data import MetaTensor
from monai.networks.layers import gaussian_1d
from monai.transforms import Spacing
from torch import Tensor

from medpixcl.blur import gaussian_blur
from medpixcl.coordinates import spatial_affine, working_affine

_BLOCK = 32
"""Voxels of the result along an axis that are computed together."""
_STRAIGHT = 1e-6
"""Share of a voxel by which an axis may run along another one, so that both count as parallel."""


def resampled(image: MetaTensor, spacing_mm: Sequence[float], sigma: Sequence[float]) -> MetaTensor:
    """Blur an image (:func:`medpixcl.blur.gaussian_blur`), then bring it to a spacing as MONAI's ``Spacing`` does.

    Both continue the image with its border values.

    Args:
        image: Image, (C, *spatial), with an affine to mm.
        spacing_mm: Voxel size of the result along each array axis.
        sigma: Standard deviation of the blur along each axis in voxels of the image; 0 leaves an axis alone.

    Returns:
        The resampled image, of one value if the image has one alone. Its axes run as those of the image, and its first
        voxel is the first one of the image.
    """
    spacing = Spacing(pixdim=spacing_mm, mode="bilinear", padding_mode="border")
    planned = spacing(image, lazy=True)
    shape, affine = planned.peek_pending_shape(), torch.as_tensor(planned.peek_pending_affine(), dtype=torch.float64)
    to_image = torch.linalg.solve(working_affine(image), spatial_affine(affine, len(shape)))
    steps, start = to_image[:-1, :-1].diagonal(), to_image[:-1, -1]
    if bool(((to_image[:-1, :-1] - torch.diag(steps)).abs() > _STRAIGHT * steps.abs()).any()):  # a sheared grid
        return spacing(MetaTensor(gaussian_blur(image.as_tensor(), sigma), meta=image.meta))
    values = image.as_tensor().float()
    if bool(values.amin() == values.amax()):  # sums of rounded weights would make noise of it
        return MetaTensor(values.flatten()[:1].repeat(len(values), *shape), meta={**image.meta, "affine": affine})
    for axis in sorted(range(len(shape)), key=lambda one: shape[one] / image.shape[1 + one]):
        positions = start[axis] + steps[axis] * torch.arange(shape[axis], dtype=torch.float64)
        values = _along(values, 1 + axis, *_taps(positions, image.shape[1 + axis], sigma[axis]))
    return MetaTensor(values, meta={**image.meta, "affine": affine})


def _taps(positions: Float[Tensor, " m"], size: int, sigma: float) -> tuple[Int64[Tensor, "m t"], Float[Tensor, "m t"]]:
    """Voxels along an axis, and their weights, that make the blurred values at some positions."""
    kernel = gaussian_1d(torch.tensor(sigma), normalize=True).double() if sigma > 0 else torch.ones(1).double()
    inside = positions.clamp(0, size - 1)
    first, nothing = inside.floor().long(), kernel.new_zeros(1)
    share = (inside - first)[:, None]
    weights = (1 - share) * torch.cat([kernel, nothing]) + share * torch.cat([nothing, kernel])
    reach = len(kernel) // 2
    return (first[:, None] + torch.arange(-reach, reach + 2)).clamp(0, size - 1), weights


def _along(
    values: Float[Tensor, "*s"], axis: int, voxels: Int64[Tensor, "m t"], weights: Float[Tensor, "m t"]
) -> Float[Tensor, "*r"]:
    """Weighted sums along one axis, a block of the result at a time, each by one product of matrices."""
    before, size, after = values.shape[:axis], values.shape[axis], values.shape[axis + 1 :]
    source = values.reshape(before.numel(), size, after.numel())
    result = source.new_empty(len(source), len(voxels), source.shape[2])
    for start in range(0, len(voxels), _BLOCK):
        block = slice(start, start + _BLOCK)
        first, last = int(voxels[block].min()), int(voxels[block].max())
        matrix = weights.new_zeros(len(voxels[block]), last - first + 1)
        matrix = matrix.scatter_add_(1, voxels[block] - first, weights[block]).to(source)
        part = source[:, first : last + 1]
        if source.shape[2] == 1:
            result[:, block, 0] = part[..., 0] @ matrix.T
        else:
            torch.matmul(matrix, part, out=result[:, block])
    return result.view(*before, len(voxels), *after)
