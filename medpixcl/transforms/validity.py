"""Moving maps that carry their validity: values first, validity (0 to 1) as the last channel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.blur import gaussian_blur
from medpixcl.coordinates import spatial_affine
from medpixcl.views import resample, view_positions

LEAST_VALIDITY = 1e-3
"""Share of known values below which a resampled pixel is missing."""


def weigh(channel: Float[Tensor, "b c1 *s"]) -> Float[Tensor, "b c1 *s"]:
    """Values times validity, which is what may be averaged; whatever stands where nothing is known, NaN too, is 0.

    Example:
        >>> weigh(torch.tensor([[[4.0, torch.nan]], [[0.5, 0.0]]]).movedim(0, 1))
        tensor([[[2.0000, 0.0000], [0.5000, 0.0000]]])
    """
    values, validity = channel[:, :-1], channel[:, -1:]
    return torch.cat([torch.where(validity > 0, values * validity, 0.0), validity], dim=1)


def unweigh(channel: Float[Tensor, "b c1 *s"]) -> Float[Tensor, "b c1 *s"]:
    """Undo :func:`weigh` after an average: the mean of what is known, and how much that is."""
    sums, validity = channel[:, :-1], channel[:, -1:]
    known = validity > LEAST_VALIDITY
    values = torch.where(known, sums / torch.where(known, validity, 1.0), 0.0)
    return torch.cat([values, torch.where(known, validity, 0.0)], dim=1)


def resample_valid(
    channel: Float[Tensor, "b c1 *s"], positions: Float[Tensor, "b *v d"], *, mode: str = "bilinear"
) -> Float[Tensor, "b c1 *v"]:
    """Values and validity at positions, interpolated between known values only; validity 0 outside.

    ``value = sum w v e / sum w v`` and ``validity = sum w v`` with the interpolation's weights ``w``.

    Args:
        channel: Values and validity, shape (B, C+1, *spatial).
        positions: Voxels, shape (B, *view, D), array order.
        mode: ``bilinear`` (linear in any dimension), or ``nearest`` for classes.
    """
    if mode == "nearest":
        return resample(channel, positions, mode=mode)
    return unweigh(resample(weigh(channel), positions, mode=mode))


def resample_to_grid(
    channel: Float[Tensor, " c1 *s"],
    affine: Float[Tensor, "4 4"],
    shape: Sequence[int],
    target: Float[Tensor, "4 4"],
    *,
    nearest: bool = False,
) -> Float[Tensor, " c1 *v"]:
    """Values and validity of a channel at the voxels of another grid.

    Args:
        channel: Values and validity, shape (C+1, *spatial).
        affine: Affine of the channel, RAS+, voxel -> mm.
        shape: Spatial shape of the other grid.
        target: Affine of the other grid, RAS+.
        nearest: Take the value of the nearest voxel, for classes.
    """
    own, other = (spatial_affine(one.double(), len(shape)) for one in (affine, target))
    to_own = torch.linalg.inv(own) @ other
    positions = view_positions(to_own[None].to(channel.device), shape)
    if nearest:
        return resample_valid(channel[None], positions, mode="nearest")[0]
    # Voxels of the other grid, measured along the axes of the channel: the two may have another order of axes.
    sigma = ((torch.linalg.vector_norm(to_own[:-1, :-1], dim=1) - 1) / 2).clamp(min=0)
    if bool((sigma > 0.005).any()):
        channel = unweigh(gaussian_blur(weigh(channel[None])[0], sigma.tolist())[None])[0]
    return resample_valid(channel[None], positions)[0]


def stretch(
    channel: Float[Tensor, " c1 *s"], shape: Sequence[int], *, nearest: bool = False
) -> Float[Tensor, " c1 *v"]:
    """Values and validity of a channel, its outer edges laid on those of an image of another size.

    Args:
        channel: Values and validity, shape (C+1, *spatial).
        shape: Spatial shape of the result.
        nearest: Take the value of the nearest voxel, for classes.

    Raises:
        ValueError: If the numbers of axes differ.
    """
    dims = len(shape)
    if channel.ndim - 1 != dims:
        raise ValueError(f"a channel of {channel.ndim - 1} axes cannot stand in for one of {dims}; keep them apart.")
    own, other = (torch.tensor(list(sizes), dtype=torch.float64) for sizes in (channel.shape[1:], shape))
    factor = own / other
    matrix = torch.diag(torch.cat([factor, torch.ones(1, dtype=torch.float64)]))
    matrix[:dims, dims] = (factor - 1) / 2
    positions = view_positions(matrix[None].to(channel.device), shape)
    # Half a voxel beyond the outermost centres there is nothing to interpolate with.
    last = own.to(positions) - 1
    positions = positions.clamp(min=torch.zeros_like(last), max=last)
    return resample_valid(channel[None], positions, mode="nearest" if nearest else "bilinear")[0]
