"""How far predicted landmarks lie from the reference: radial errors, MRE, SDR, and how sure the numbers are.

MRE is the mean radial error in mm, SDR the successful detection rate: the percentage of points whose error is strictly
below a threshold. Intervals resample images (:mod:`medpixcl.landmarks.resampling`). All results are ready for JSON.

Reference: Wang et al., Med Image Anal 31 (2016) 63-76 (MRE, its standard deviation, SDR).
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from medpixcl._typing import PointsMM
from medpixcl.landmarks.resampling import TIE_MM, means_of, named_means, percentile_intervals, point_moments

THRESHOLDS_MM = (2.0, 2.5, 3.0, 4.0)
OFF_PLANE_MM = 1.0
"""A point of a picture may lie so far from its plane."""
Points = Mapping[str, Sequence[float] | None]
"""Landmark name to position in mm; ``None`` or NaN is a missing point."""


def radial_errors(predicted: PointsMM, reference: PointsMM) -> Float[Tensor, "*b k"]:
    """Euclidean distance in mm of every predicted point to its reference; NaN where either is missing (NaN).

    Args:
        predicted: Shape (..., K, D), mm.
        reference: Same shape, same frame.

    Returns:
        Shape (..., K), mm.

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
    """MRE, spread and SDR over all points and for each landmark.

    Args:
        errors: Radial errors in mm, shape (N images, K landmarks); NaN is a point that could not be measured. Such
            points count as ``missing`` and enter no mean.
        names: Name of each landmark, K of them, all different.
        thresholds: SDR thresholds in mm; a point is detected when its error is strictly below.
        bootstrap: Number of resamples of the images behind the 95 % percentile intervals; 0 leaves them ``None``.
        seed: Of the resampling.

    Returns:
        ``images`` (N), ``images_measured`` (with at least one point), and the overall statistics ``measured``,
        ``missing``, ``mre_mm``, ``std_mm`` (N - 1 in the denominator), ``median_mm``, ``p95_mm``, ``sdr_percent``
        (threshold such as ``"2.5"`` to percent), ``interval_95`` (``mre_mm`` and ``sdr_percent`` to [low, high]);
        ``per_landmark`` has the same statistics under each name. What cannot be computed is ``None``: a mean of no
        point, a deviation of fewer than two points, an interval of fewer than two images.

    Raises:
        ValueError: If the names do not fit, or an error is negative or infinite.
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
    """By how much method B beats method A on the same points, with 95 % intervals over images.

    Args:
        errors_a: Radial errors of A in mm, shape (N images, K landmarks), NaN where missing.
        errors_b: Radial errors of B for the same images and landmarks.
        thresholds: SDR thresholds in mm.
        bootstrap: Number of resamples of the images; 0 leaves the interval ``None``.
        seed: Of the resampling.

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


def evaluate_positions(
    predictions: Mapping[str, Points],
    reference: Mapping[str, Points],
    *,
    exclude: Collection[str] = (),
    thresholds: Sequence[float] = THRESHOLDS_MM,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare predicted with reference positions, image by image, and list whatever stands on one side only.

    Images meet by key, else by file name (:func:`pair_images`); landmarks meet by name.

    Args:
        predictions: Image (path) to landmark to position in mm.
        reference: The same, in the same frame.
        exclude: Images to leave out, by key or file name: the template, above all.
        thresholds: SDR thresholds in mm.
        bootstrap: See :func:`summarise_errors`.
        seed: See :func:`summarise_errors`.

    Returns:
        What :func:`summarise_errors` says of the landmarks of the reference in the paired images, and
        ``sdr_percent_missing_as_miss`` (a point without a prediction counts as not detected), ``per_image`` (``mre_mm``
        and ``errors_mm`` by landmark), ``images_without_reference``, ``images_without_prediction``,
        ``landmarks_without_reference``, ``landmarks_without_prediction``, ``points_without_reference``,
        ``points_without_prediction`` (image to names), ``excluded``, ``exclude_not_found``.

    Raises:
        ValueError: If no image is on both sides, a file name stands for several images, or positions differ in length.
    """
    kept, kept_reference = _without(predictions, exclude), _without(reference, exclude)
    pairs = pair_images(kept, kept_reference)
    if not pairs:
        raise ValueError(
            f"none of the {len(kept)} predicted images is among the {len(kept_reference)} reference images; "
            "expected the same paths or file names on both sides."
        )
    guessed, given = [kept[image] for image in pairs], [kept_reference[image] for image in pairs.values()]
    names = list(dict.fromkeys(itertools.chain(*given)))
    found, expected = _stack(guessed, given, names)
    errors = radial_errors(found, expected)
    gone = [*(predictions.keys() - kept.keys()), *(reference.keys() - kept_reference.keys())]
    excluded = {file_name(key): key for key in reversed(gone)}
    return {
        **summarise_errors(errors, names, thresholds=thresholds, bootstrap=bootstrap, seed=seed),
        "sdr_percent_missing_as_miss": _strict_rate(errors, ~expected.isnan().any(-1), thresholds),
        "images_without_reference": sorted(kept.keys() - pairs.keys()),
        "images_without_prediction": sorted(kept_reference.keys() - set(pairs.values())),
        "landmarks_without_reference": sorted(set(itertools.chain(*guessed)) - set(names)),
        "landmarks_without_prediction": sorted(set(names) - set(itertools.chain(*guessed))),
        "points_without_reference": _only_in(found, expected, list(pairs), names),
        "points_without_prediction": _only_in(expected, found, list(pairs), names),
        "excluded": sorted(excluded.values()),
        "exclude_not_found": sorted(entry for entry in exclude if file_name(entry) not in excluded),
        "per_image": {image: _image_entry(row, names) for image, row in zip(pairs, errors, strict=True)},
    }


def pair_images(predicted: Iterable[str], reference: Iterable[str]) -> dict[str, str]:
    """Which reference image belongs to which predicted one: the same key, else the same :func:`file_name`.

    Args:
        predicted: Keys, usually paths.
        reference: Keys of the other side.

    Returns:
        Predicted key to reference key, in the order of ``predicted``; images without a partner are not in it.

    Raises:
        ValueError: If a file name stands for several images of one side.

    Example:
        >>> pair_images(["run/a.nii.gz", "run/b.png"], ["truth/a.nii.gz", "truth/c.png"])
        {'run/a.nii.gz': 'truth/a.nii.gz'}
    """
    predicted, reference = list(predicted), list(reference)
    partner = {key: key for key in set(predicted) & set(reference)}
    ours, theirs = (_by_file_name(key for key in side if key not in partner) for side in (predicted, reference))
    for name in ours.keys() & theirs.keys():
        if len(ours[name]) > 1 or len(theirs[name]) > 1:
            raise ValueError(
                f"the file name {name!r} stands for {len(ours[name])} predicted and {len(theirs[name])} reference "
                "images; expected one of each; give the images the same full paths on both sides."
            )
        partner[ours[name][0]] = theirs[name][0]
    return {key: partner[key] for key in predicted if key in partner}


def file_name(key: str) -> str:
    """Last part of a path without compression and suffix. A dot before a number starts no suffix: folders may be UIDs.

    Example:
        >>> file_name("scans/a.nii.gz"), file_name("b.png"), file_name("series/1.2.840.5/")
        ('a', 'b', '1.2.840.5')
    """
    name = re.split(r"[\\/]", key.rstrip("\\/"))[-1].removesuffix(".gz")
    return re.sub(r"(?<=.)\.[A-Za-z]\w*$", "", name)


def in_plane(point: Sequence[float], dims: int) -> Sequence[float]:
    """A position without its third coordinate where others have two: 3D Slicer writes a picture's points with z = 0.

    Example:
        >>> in_plane((3.0, 4.0, 0.0), 2), in_plane((3.0, 4.0, 7.0), 2)
        ((3.0, 4.0), (3.0, 4.0, 7.0))
    """
    return point[:2] if dims == 2 and len(point) == 3 and abs(point[2]) <= OFF_PLANE_MM else point


class RadialErrorMetric(CumulativeIterationMetric):
    """Collects radial errors; called with (B, K, D) positions in mm, or lists of (K, D), predicted then reference.

    A call returns the errors, shape (B, K); NaN marks a missing point and enters no aggregate.
    In a bundle, wrap the metric in :class:`monai.handlers.IgniteMetricHandler`.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        if y is None:
            raise ValueError("found no reference positions; expected y of the same shape as y_pred.")
        return radial_errors(y_pred, y)

    def measured(self) -> Float[Tensor, " n"]:
        """Errors in mm of all measured points of all processes since the last reset."""
        errors = self.get_buffer()
        if errors is None:
            raise ValueError("found no errors to aggregate; expected at least one call before.")
        return errors[~errors.isnan()]


class MeanRadialError(RadialErrorMetric):
    """MRE in mm as a MONAI metric."""

    def aggregate(self) -> Tensor:
        """Mean of the measured errors; scalar, NaN when there is none."""
        return self.measured().mean()


class SuccessfulDetectionRate(RadialErrorMetric):
    """SDR in percent as a MONAI metric.

    Args:
        threshold_mm: A point is detected when its error is strictly below.
    """

    def __init__(self, threshold_mm: float = 2.0) -> None:
        super().__init__()
        self.threshold_mm = threshold_mm

    def aggregate(self) -> Tensor:
        """Percentage of the measured errors below the threshold; scalar, NaN when there is none."""
        return 100 * (self.measured() < self.threshold_mm - TIE_MM).float().mean()


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


def _strict_rate(errors: Tensor, expected: Bool[Tensor, "n k"], thresholds: Sequence[float]) -> dict[str, Any]:
    rates = [100 * (errors < limit - TIE_MM)[expected].double().mean() for limit in thresholds]
    return named_means([0.0, *map(float, rates)], thresholds)["sdr_percent"]


def _by_file_name(keys: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(file_name(key), []).append(key)
    return groups


def _without(side: Mapping[str, Points], exclude: Collection[str]) -> dict[str, Points]:
    names = {file_name(entry) for entry in exclude if entry not in side}
    return {key: points for key, points in side.items() if key not in exclude and file_name(key) not in names}


def _stack(
    guessed: Sequence[Points], given: Sequence[Points], names: Sequence[str]
) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n k d"]]:
    """Positions of both sides as arrays, NaN where missing."""
    sides = [*guessed, *given]
    dims = min((len(point) for points in sides for point in points.values() if point is not None), default=2)
    lengths = {len(in_plane(point, dims)) for points in sides for point in points.values() if point is not None}
    if len(lengths) > 1:
        raise ValueError(f"found positions of {sorted(lengths)} coordinates; expected the same number everywhere.")
    shape = len(given), len(names), dims
    found, expected = torch.full((2, *shape), float("nan"), dtype=torch.float64)
    for array, side in ((found, guessed), (expected, given)):
        for image, points in enumerate(side):
            for index, name in enumerate(names):
                if (point := points.get(name)) is not None:
                    array[image, index] = torch.as_tensor(in_plane(point, dims), dtype=torch.float64)
    return found, expected


def _only_in(
    there: Float[Tensor, "n k d"], absent: Float[Tensor, "n k d"], images: Sequence[str], names: Sequence[str]
) -> dict[str, list[str]]:
    only = ~there.isnan().any(-1) & absent.isnan().any(-1)
    table = {image: [names[index] for index in row.nonzero()[:, 0]] for image, row in zip(images, only, strict=True)}
    return {image: listed for image, listed in table.items() if listed}


def _image_entry(errors: Float[Tensor, " k"], names: Sequence[str]) -> dict[str, Any]:
    values = {name: error for name, error in zip(names, errors.tolist(), strict=True) if error == error}
    return {"mre_mm": sum(values.values()) / len(values) if values else None, "errors_mm": values}
