"""Mutual information of the grey levels of two patches, in nats.

Reference: Quan et al., "IGU-Aug: Information-guided unsupervised augmentation and pixel-wise contrastive learning for
medical image analysis", arXiv 2211.07118, IEEE TMI 44(1), 2025.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl._typing import Number

CELLS_AT_ONCE = 1 << 22
"""Cells of tables in memory at a time."""


def joint_mutual_information(
    a: Float[Tensor, " b *s"], b: Float[Tensor, "_ ..."], *, bins: int = 32, value_range: Sequence[Number] = (0, 1)
) -> Float[Tensor, " b"]:
    """Mutual information of the grey levels that two patches have at the same pixel, in nats.

    ``I = sum_ij p_ij log(p_ij / (p_i p_j))`` with ``p_ij`` the share of pixels in bin ``i`` of one patch and ``j`` of
    the other. It lies between 0 and the entropy of either patch; for a patch and itself it is the entropy. For
    unrelated patches of n pixels it is not 0, but about ``(bins - 1)^2 / 2n``, so use few bins for small patches.

    Args:
        a: First patch of each pair, shape (B, *spatial).
        b: Second patch of each pair, shape (B, *spatial).
        bins: Number of grey levels: ``floor((v - low) / (high - low) * bins)``, clipped.
        value_range: (low, high) of the grey levels, the same for all patches. With ``(0, 255)`` and 256 bins the
            levels of 8-bit data are its values.

    Returns:
        Shape (B,), float32.

    Raises:
        ValueError: If the patches differ in shape, are empty or not finite, or an argument is out of range.

    Example:
        >>> stripes = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
        >>> joint_mutual_information(stripes, torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]))
        tensor([0.6931, 0.0000])
    """
    first, second = _checked_levels(a, b, bins, value_range)
    return _in_parts(lambda one, other: _joint_information(one, other, bins), first, second, bins * bins)


def count_vector_mutual_information(
    a: Float[Tensor, " b *s"], b: Float[Tensor, "_ ..."], *, bins: int = 256, value_range: Sequence[Number] = (0, 1)
) -> Float[Tensor, " b"]:
    """The original code's mutual information: that of the patches' histogram counts taken as labels, in nats.

    The grey levels are the samples, and the number of times that each occurs in a patch is its label:
    ``I = H(label in a) + H(label in b) - H(both labels)``. The place of a grey level in the patch plays no part, so
    shuffled pixels change nothing. For comparison only; see :func:`joint_mutual_information`.

    Args:
        a: First patch of each pair, shape (B, *spatial).
        b: Second patch of each pair, shape (B, *spatial).
        bins: Number of grey levels; 256 in the original.
        value_range: (low, high) of the grey levels, the same for all patches.

    Returns:
        Shape (B,), float32.

    Raises:
        ValueError: If :func:`joint_mutual_information` raises it for the patches.

    Example:
        >>> ramp = torch.tensor([[0.0, 0.5, 0.5, 0.9]])
        >>> count_vector_mutual_information(ramp, ramp.flip(1), bins=4)
        tensor([1.0397])
    """
    first, second = _checked_levels(a, b, bins, value_range)
    return _in_parts(lambda one, other: _label_information(one, other, bins), first, second, bins * bins)


def _checked_levels(
    a: Tensor, b: Tensor, bins: int, value_range: Sequence[Number]
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Bin numbers of both patches, the pixels of a patch in one row."""
    if a.shape != b.shape or a.ndim < 2 or 0 in a.shape[1:]:
        raise ValueError(
            f"the patches have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected (B, *spatial), both the same and "
            "with pixels."
        )
    if not 1 <= bins <= 1024:
        raise ValueError(f"bins is {bins}; expected 1 to 1024 grey levels.")
    low, high = value_range
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"value_range is ({low}, {high}); expected two finite numbers, low < high.")
    return _levels(a, bins, low, high), _levels(b, bins, low, high)


def _levels(patches: Tensor, bins: int, low: Number, high: Number) -> Int[Tensor, "b n"]:
    """Bin number of every pixel."""
    values = patches.detach().as_subclass(Tensor).flatten(1)
    if not bool(values.isfinite().all()):
        raise ValueError("a patch has NaN or infinite pixels; expected finite values: leave these patches out.")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return ((values - low) / (high - low) * bins).clamp_(0, bins - 1).long()


def _in_parts(
    information: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor, cells: int
) -> Float[Tensor, " b"]:
    """Information of all rows, a bounded number of tables at a time."""
    rows = max(1, CELLS_AT_ONCE // cells)
    parts = zip(first.split(rows), second.split(rows), strict=True)
    return torch.cat([information(one, other).clamp_min_(0).float() for one, other in parts])


def _joint_information(first: Int[Tensor, "b n"], second: Int[Tensor, "b n"], bins: int) -> Float[Tensor, " b"]:
    """Mutual information from the sums of c log c over the joint histogram and its two margins."""
    batch, pixels = first.shape
    row = torch.arange(batch, device=first.device)[:, None]
    cell = ((row * bins + first) * bins + second).flatten()
    joint = torch.bincount(cell, minlength=batch * bins * bins).view(batch, bins, bins).double()
    total = _count_logs(joint.flatten(1)) - _count_logs(joint.sum(2)) - _count_logs(joint.sum(1))
    return total / pixels + math.log(pixels)


def _count_logs(counts: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Sum of c log c."""
    return torch.special.xlogy(counts, counts).sum(1)


def _label_information(first: Int[Tensor, "b n"], second: Int[Tensor, "b n"], bins: int) -> Float[Tensor, " b"]:
    """A label's entropy is the mean over the grey levels of -log(share of the levels with the same label)."""
    same_first, same_second = (_same_count(levels, bins) for levels in (first, second))
    shares = [same.sum(2).double() / bins for same in (same_first & same_second, same_first, same_second)]
    joint, one, other = (share.log().mean(1) for share in shares)
    return joint - one - other


def _same_count(levels: Int[Tensor, "b n"], bins: int) -> Tensor:
    """True where two grey levels occur equally often in a patch, shape (B, bins, bins)."""
    counts = levels.new_zeros(len(levels), bins).scatter_add_(1, levels, torch.ones_like(levels))
    return counts[:, :, None] == counts[:, None, :]
