"""Means of radial errors and their percentile intervals, resampling images.

A statistic such as MRE or SDR is a mean over points, but the points of one image are not independent. So an image is
the unit that is drawn: its points enter a resample together, as sums and a count.

Reference: Davison and Hinkley, Bootstrap Methods and their Application (1997), sections 3.8 and 5.3.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

TIE_MM = 1e-6
"""An error this close to a threshold equals it, so is not below: positions on a grid of 0.1 mm often lie 2 mm apart
exactly, and rounding must not decide."""

Moments = Float[np.ndarray, "*n moments"]
"""Per point or summed over points: number measured, error in mm, and 100 for each threshold that the error is below."""


def point_moments(errors: Float[np.ndarray, "n k"], thresholds: Sequence[float]) -> Moments:
    """Compute the moments of single points, shape (N, K, 2 + T); all zero where the error is NaN."""
    measured = ~np.isnan(errors)
    hits = [100.0 * (errors < limit - TIE_MM) for limit in thresholds]
    return np.stack([measured.astype(float), np.where(measured, errors, 0.0), *hits], axis=-1)


def means_of(moments: Moments) -> Float[np.ndarray, "*n means"]:
    """Convert summed moments (..., 2 + T) to MRE in mm and SDR in percent (..., 1 + T); NaN where nothing was measured.

    Example:
        >>> means_of(np.array([4.0, 6.0, 200.0])).tolist()
        [1.5, 50.0]
    """
    count, sums = moments[..., :1], moments[..., 1:]
    return np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)


def percentile_intervals(
    moments: Moments, thresholds: Sequence[float], *, bootstrap: int, seed: int
) -> list[dict[str, Any] | None]:
    """Compute 95 % intervals of MRE and SDR for each column of moments, drawing images with replacement.

    Args:
        moments: Moments of each image, shape (N images, columns, 2 + T).
        thresholds: T thresholds in mm, for the names in the result.
        bootstrap: Number of resamples.
        seed: Random seed of the resampling.

    Returns:
        Result of :func:`named_means` with [low, high] for each column; ``None`` for a column measured in fewer than
        two images, and without resamples.
    """
    images = len(moments)
    enough = (moments[..., 0] > 0).sum(axis=0) > 1
    if bootstrap == 0 or not enough.any():
        return [None] * len(enough)
    sums = moments[:, enough].reshape(images, -1)
    generator = np.random.default_rng(seed)
    weights = (np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(bootstrap))
    draws = means_of(np.stack([weight @ sums for weight in weights]).reshape(bootstrap, -1, moments.shape[-1]))
    bounds = iter(np.nanquantile(draws, [0.025, 0.975], axis=0).transpose(1, 2, 0).tolist())
    return [named_means(next(bounds), thresholds) if valid else None for valid in enough]


def named_means(means: Iterable[Any], thresholds: Sequence[float]) -> dict[str, Any]:
    """Name the results of :func:`means_of`, MRE and SDRs; NaN becomes ``None``.

    Example:
        >>> named_means([1.5, 50.0], [2.0])
        {'mre_mm': 1.5, 'sdr_percent': {'2': 50.0}}
    """
    mre, *sdr = [None if isinstance(mean, float) and np.isnan(mean) else mean for mean in means]
    return {"mre_mm": mre, "sdr_percent": dict(zip((f"{limit:g}" for limit in thresholds), sdr, strict=True))}
