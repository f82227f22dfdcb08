"""Consistency of the cells of two views: PixPro's losses of pixels and images, and PixContrast.

The losses are those of arXiv 2011.10043 and its published code.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.losses.gathering import divisor_over_processes

Average = Literal["contributing", "batch"]


def pixel_consistency(
    queries: Float[Tensor, "b c n"],
    keys: Float[Tensor, "b c m"],
    weights: Float[Tensor, "b n m"],
    *,
    average: Average = "contributing",
) -> Float[Tensor, ""]:
    """PixPro's loss of one direction, ``-2 * mean_b [ sum_ij M_ij cos(q_i, k_j) / (sum_ij M_ij + 1e-6) ]``.

    The factor 2 is that of the published code (the paper's equation has 1): perfect agreement is -2 a direction.

    Args:
        queries: Online vectors after the pixel propagation, shape (B, C, N); they are normalised here.
        keys: Vectors of the momentum encoder, shape (B, C, M); they are normalised here.
        weights: Weights of the positive pairs, shape (B, N, M).
        average: ``contributing`` (ours) averages over the pairs of views that have a positive, in all processes of a
            training; ``batch`` averages over all pairs, as the published code does, where one without positives adds 0.

    Returns:
        Scalar, float32; exactly 0, with a gradient, where no pair of views has a positive.

    Example:
        >>> cells = torch.eye(2)[None]
        >>> round(pixel_consistency(cells, cells, cells).item(), 4)
        -2.0
    """
    _check_shapes(queries, keys, weights)
    with torch.autocast(queries.device.type, enabled=False):
        first, second = _unit(queries), _unit(keys)
        weights = weights.to(first)
        # sum_ij M_ij q_i k_j without the N x M cosines: every query against the sum of its positives.
        agreement = (first * (second @ weights.mT)).sum((1, 2))
        total = weights.sum((1, 2))
        return -2 * _mean(agreement / (total + 1e-6), total > 0, average)


def pixel_contrast_multi_positive(
    queries: Float[Tensor, "b c n"],
    keys: Float[Tensor, "b c m"],
    weights: Float[Tensor, "b n m"],
    *,
    temperature: float | int = 0.3,
    candidates: Bool[Tensor, "b n m"] | None = None,
    average: Average = "contributing",
) -> Float[Tensor, ""]:
    """PixContrast's loss of one direction: InfoNCE with the positives summed inside the logarithm.

    ``-log[ sum_j M_ij e^(cos_ij / t) / sum_j e^(cos_ij / t) ]``, mean over the cells i that have a positive, then over
    images. The keys are the cells of the other view of the same image.

    Args:
        queries: Online vectors, shape (B, C, N); they are normalised here.
        keys: Vectors of the momentum encoder, shape (B, C, M); they are normalised here.
        weights: Weights of the positive pairs, shape (B, N, M).
        temperature: Number that divides the cosine.
        candidates: True for the pairs in the denominator, shape (B, N, M); all by default. Positives are always among
            them.
        average: Averaging over the pairs of views, see :func:`pixel_consistency`.

    Returns:
        Scalar, float32; exactly 0, with a gradient, where no pair of views has a positive.

    Reference: arXiv 2011.10043, equations 2 and 3.

    Example:
        >>> cells = torch.eye(2)[None]
        >>> pixel_contrast_multi_positive(cells, cells, cells, temperature=1.0)
        tensor(0.3133)
    """
    _check_shapes(queries, keys, weights)
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it divides the cosine and must be greater than 0.")
    with torch.autocast(queries.device.type, enabled=False):
        logits = _unit(queries).mT @ _unit(keys) / temperature
        weights = weights.to(logits)
        counted = weights.sum(2) > 0
        every = logits if candidates is None else logits.masked_fill(~candidates & (weights == 0), -torch.inf)
        # A finite stand-in for rows without a positive: their gradient is 0 and not NaN.
        positive = (logits + weights.log()).masked_fill(~counted[:, :, None], 0.0)
        every = every.masked_fill(~counted[:, :, None], 0.0)
        losses = (every.logsumexp(2) - positive.logsumexp(2)) * counted
        number = counted.sum(1)
        return _mean(losses.sum(1) / number.clamp_min(1), number > 0, average)


def instance_consistency(queries: Float[Tensor, "b c"], keys: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Loss of the instance branch in one direction, ``-2 * mean cos``, as in the published code."""
    with torch.autocast(queries.device.type, enabled=False):
        return -2 * (_unit(queries) * _unit(keys)).sum(1).mean()


@torch.no_grad()
def vector_spread(vectors: Float[Tensor, "b c n"]) -> Float[Tensor, ""]:
    """Root mean square distance of unit vectors (B, C, N) from their mean: 0 when all are one (collapse), at most 1.

    Example:
        >>> vector_spread(torch.eye(4)[None])
        tensor(0.8660)
    """
    return (1 - vectors.mean((0, 2)).square().sum()).clamp_min(0).sqrt()


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)


def _mean(values: Tensor, contributes: Tensor, average: Average) -> Tensor:
    if average == "batch":
        return (values * contributes).sum() / len(values)
    number = divisor_over_processes(contributes.sum().to(values))
    return (values * contributes).sum() / torch.where(number > 0, number, 1)


def _check_shapes(queries: Tensor, keys: Tensor, weights: Tensor) -> None:
    expected = (*queries.mT.shape[:2], keys.shape[2])
    if tuple(weights.shape) != expected:
        raise ValueError(f"weights have the shape {tuple(weights.shape)}; expected (B, N, M), here {expected}.")
