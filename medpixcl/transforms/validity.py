"""Moving maps that carry their validity: values first, validity (0 to 1) as the last channel."""

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.views import resample

LEAST_VALIDITY = 1e-3
"""Below this share of known values a resampled pixel knows nothing."""


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
