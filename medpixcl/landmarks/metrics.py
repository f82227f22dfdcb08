"""Errors of predicted landmarks against a reference: radial errors, MRE, SDR, and their confidence intervals.

MRE is the mean radial error in mm, SDR the successful detection rate: the percentage of points whose error is strictly
below a threshold. Intervals resample images (:mod:`medpixcl.landmarks.resampling`). All results are ready for JSON.

Reference: Wang et al., Med Image Anal 31 (2016) 63-76 (MRE, its standard deviation, SDR).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import PointsMM
from medpixcl.landmarks.resampling import means_of, named_means, percentile_intervals, point_moments

THRESHOLDS_MM = (2.0, 2.5, 3.0, 4.0)


def radial_errors(predicted: PointsMM, reference: PointsMM) -> Float[Tensor, "*b k"]:
    """Compute the Euclidean distance in mm of every predicted point to its reference; NaN where either is NaN.

    Args:
        predicted: Predicted positions in mm, shape (..., K, D).
        reference: Reference positions in mm, in the same shape and frame.

    Returns:
        Distances in mm, shape (..., K).

    Example:
        >>> radial_errors(torch.tensor([[3.0, 4.0], [float("nan"), 0.0]]), torch.zeros(2, 2))
        tensor([5., nan])
    """
    return torch.linalg.vector_norm(predicted - reference, dim=-1)


def summarise_errors(
    errors: Float[Tensor, "n k"],
    names: Sequence[str],
    *,
    thresholds: Sequence[float] = THRESHOLDS_MM,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute MRE, spread and SDR over all points and for each landmark.

    Args:
        errors: Radial errors in mm, shape (N images, K landmarks); NaN marks a point that could not be measured, which
            counts as ``missing`` and enters no mean.
        names: Unique names of the K landmarks.
        thresholds: SDR thresholds in mm; a point is detected when its error is strictly below.
        bootstrap: Number of resamples of the images behind the 95 % percentile intervals; 0 leaves them ``None``.
        seed: Random seed of the resampling.

    Returns:
        ``images`` (N), ``images_measured`` (with at least one point), and the overall statistics ``measured``,
        ``missing``, ``mre_mm``, ``std_mm`` (N - 1 in the denominator), ``median_mm``, ``p95_mm``, ``sdr_percent``
        (threshold such as ``"2.5"`` to percent), ``interval_95`` (``mre_mm`` and ``sdr_percent`` to [low, high]);
        ``per_landmark`` has the same statistics under each name. Values that cannot be computed are ``None``: a
        mean of no point, a deviation of fewer than two points, an interval of fewer than two images.

    Raises:
        ValueError: If the names are not K unique ones, or an error is negative or infinite.
    """
    values = _checked(errors, names)
    moments = point_moments(values[~np.isnan(values).all(axis=1)], thresholds)
    columns = np.concatenate([moments, moments.sum(axis=1, keepdims=True)], axis=1)
    intervals = percentile_intervals(columns, thresholds, bootstrap=bootstrap, seed=seed)
    *landmarks, overall = [
        {**_statistics(column, thresholds), "interval_95": interval}
        for column, interval in zip([*values.T, values.ravel()], intervals, strict=True)
    ]
    counts = {"images": len(values), "images_measured": len(moments)}
    return {**counts, **overall, "per_landmark": dict(zip(names, landmarks, strict=True))}


def paired_bootstrap(
    errors_a: Float[Tensor, "n k"],
    errors_b: Float[Tensor, "n k"],
    *,
    thresholds: Sequence[float] = THRESHOLDS_MM,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute by how much method B beats method A on the same points, with 95 % intervals over images.

    Args:
        errors_a: Radial errors of A in mm, shape (N images, K landmarks), NaN where missing.
        errors_b: Radial errors of B for the same images and landmarks.
        thresholds: SDR thresholds in mm.
        bootstrap: Number of resamples of the images; 0 leaves the interval ``None``.
        seed: Random seed of the resampling.

    Returns:
        ``images`` and ``measured`` points of both, ``unpaired`` points of one only (they do not enter), ``gain`` with
        ``mre_mm`` (A minus B) and ``sdr_percent`` (B minus A), so positive when B is better, and its ``interval_95``.
    """
    names = [str(index) for index in range(errors_a.shape[1])]
    a, b = _checked(errors_a, names), _checked(errors_b, names)
    both = ~np.isnan(a) & ~np.isnan(b)
    moments_a, moments_b = (point_moments(np.where(both, values, np.nan), thresholds) for values in (a, b))
    gain = np.concatenate([moments_a[..., :1], (moments_a - moments_b)[..., 1:2], (moments_b - moments_a)[..., 2:]], -1)
    images = gain[both.any(axis=1)].sum(axis=1, keepdims=True)
    return {
        "images": len(images),
        "measured": int(both.sum()),
        "unpaired": int((np.isnan(a) != np.isnan(b)).sum()),
        "gain": named_means(means_of(images.sum(axis=(0, 1))).tolist(), thresholds),
        "interval_95": percentile_intervals(images, thresholds, bootstrap=bootstrap, seed=seed)[0],
    }


def _checked(errors: Tensor, names: Sequence[str]) -> Float[np.ndarray, "n k"]:
    values = errors.detach().cpu().double().numpy()
    if len(names) != values.shape[1] or len(set(names)) != len(names):
        raise ValueError(
            f"found {len(names)} names, {len(set(names))} of them different; "
            f"expected a name of its own for each of the {values.shape[1]} landmarks."
        )
    if np.isinf(values).any() or (values < 0).any():
        raise ValueError("found negative or infinite errors; expected distances in mm, NaN where missing.")
    return values


def _statistics(values: Float[np.ndarray, " n"], thresholds: Sequence[float]) -> dict[str, Any]:
    errors = values[~np.isnan(values)]
    count = len(errors)
    return {
        "measured": count,
        "missing": len(values) - count,
        **named_means(means_of(point_moments(errors[:, None], thresholds).sum(axis=(0, 1))).tolist(), thresholds),
        "std_mm": float(errors.std(ddof=1)) if count > 1 else None,
        "median_mm": float(np.median(errors)) if count else None,
        "p95_mm": float(np.percentile(errors, 95)) if count else None,
    }
