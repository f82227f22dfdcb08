"""Metrics as rows of text, and as a JSON file.

A table is a list of rows of text, the first one its header. ``metrics`` is the result of
:func:`medpixcl.landmarks.metrics.summarise_errors` or
:func:`medpixcl.data.landmarks.comparison.evaluate_positions`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from medpixcl._typing import Array
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import telling_names
from medpixcl.landmarks.habit import Habit
from medpixcl.reports.panels import as_array, as_flags

Metrics = Mapping[str, Any]
Table = list[list[str]]
ABSENT = "–"
_ONE_SIDED_IMAGES = {
    "images_without_reference": "images without reference",
    "images_without_prediction": "reference images without prediction",
    "points_without_reference": "images with points that lack a reference",
    "points_without_prediction": "images with points that lack a prediction",
    "excluded": "images left out: on request, or as a reader corrected them",
    "exclude_not_found": "images to be excluded that were not found",
}
_ONE_SIDED_LANDMARKS = {
    "landmarks_without_reference": "landmarks without reference",
    "landmarks_without_prediction": "reference landmarks without prediction",
}
_STATISTICS = {"mre_mm": "MRE (mm)", "std_mm": "SD (mm)", "median_mm": "median (mm)", "p95_mm": "95th percentile (mm)"}


def overall_rows(metrics: Metrics) -> Table:
    """One row per statistic over all points, with its 95 % interval where there is one."""
    rows = [[title, _text(value), bounds] for title, value, bounds in _values(metrics, list(metrics["sdr_percent"]))]
    return [["statistic", "value", "95 % interval"], *rows]


def comparison_rows(comparisons: Sequence[tuple[str, Metrics]]) -> Table:
    """One row per method: its images, missing points, MRE, median, 95th percentile and SDR, with 95 % intervals.

    Args:
        comparisons: Name and metrics of each method; thresholds that a method lacks stay empty.
    """
    limits = list(dict.fromkeys(limit for _, metrics in comparisons for limit in metrics["sdr_percent"]))
    keys = ["mre_mm", "median_mm", "p95_mm"]
    header = ["method", "images", "missing", *map(_STATISTICS.__getitem__, keys), *map(_sdr_title, limits)]
    rows = [
        [name, str(entry["images"]), str(entry["missing"]), *_with_intervals(entry, limits, keys)]
        for name, entry in comparisons
    ]
    return [header, *rows]


def landmark_summary_rows(
    names: Sequence[str],
    scores: Shaped[Array, "n k"],
    unsure: Shaped[Array, "n k"],
    metrics: Metrics | None = None,
) -> Table:
    """One row per landmark: images in which it was found, mean confidence, share flagged as unsure, and its errors.

    Args:
        names: Names of the K landmarks.
        scores: Confidence of each match, shape (N, K), NaN where the landmark was not found.
        unsure: Flags of unsure matches, shape (N, K).
        metrics: Metrics against a reference, which add MRE, median and SDR; None without one.
    """
    confidence, flags = as_array(scores), as_flags(unsure)
    limits = list(metrics["sdr_percent"]) if metrics else []
    keys = ["mre_mm", "median_mm"] if metrics else []
    header = ["landmark", "found", "mean confidence", "flagged (%)", *(_STATISTICS[key] for key in keys)]
    table = [[*header, *map(_sdr_title, limits)]]
    for index, name in enumerate(names):
        found = ~np.isnan(confidence[:, index])
        means = [float(values[found, index].mean()) if found.any() else None for values in (confidence, 100 * flags)]
        entry = metrics["per_landmark"].get(name, {}) if metrics else {}
        errors = [*map(entry.get, keys), *map(entry.get("sdr_percent", {}).get, limits)]
        table.append([name, str(int(found.sum())), *map(_text, [*means, *errors])])
    return table


def error_rows(metrics: Metrics) -> Table:
    """One row per landmark with its errors: those never measured, then the greatest mean error first."""
    limits = list(metrics["sdr_percent"])
    keys = ["mre_mm", "median_mm", "p95_mm"]
    header = ["landmark", "measured", *map(_STATISTICS.__getitem__, keys), *map(_sdr_title, limits)]
    order = sorted(metrics["per_landmark"].items(), key=lambda row: -_or_infinite(row[1]["mre_mm"]))
    rows = [[name, str(entry["measured"]), *_with_intervals(entry, limits, keys)] for name, entry in order]
    return [header, *rows]


def habit_rows(habit: Habit, moved_mm: Shaped[Array, " k"] | None, *, matched_again: bool = False) -> Table:
    """One row per landmark: its corrections, the offset learnt from them, and how far it was moved in other images.

    Args:
        habit: Reading habit of the K landmarks of the run.
        moved_mm: Mean distance in mm by which each landmark was moved, shape (K,), NaN where none was; None if unknown.
        matched_again: True if landmarks were moved by matching again, not by the offset.
    """
    axes = "xyz"[: habit.offsets_mm.shape[1]]
    moved = [math.nan] * len(habit.names) if moved_mm is None else as_array(moved_mm).tolist()
    last = f"moved by {'matching again' if matched_again else 'the offset'} (mm)"
    table = [["landmark", "corrections", *(f"offset {axis} (mm)" for axis in axes), "SD of the offset (mm)", last]]
    rows = zip(
        habit.names, habit.corrections, habit.offsets_mm.tolist(), habit.deviations_mm.tolist(), moved, strict=True
    )
    for name, count, offset, deviation, distance in rows:
        values = [*offset, deviation, None if math.isnan(distance) else distance]
        table.append([name, str(count), *map(_text, values)])
    return table


def region_rows(names: Sequence[str], radii_mm: Shaped[Array, "n k"], coverage: float) -> Table:
    """One row per landmark: images with a region, and its median, smallest and largest radius.

    Args:
        names: Names of the K landmarks.
        radii_mm: Radius of the region around each landmark of N images, shape (N, K), NaN where there is none.
        coverage: Probability with which the regions hold the true position.
    """
    radii, share = as_array(radii_mm), f"{100 * coverage:g} %"
    table = [["landmark", "images", *(f"{which} {share} radius (mm)" for which in ("median", "smallest", "largest"))]]
    for name, column in zip(names, radii.T, strict=True):
        known = column[~np.isnan(column)]
        values = [float(of(known)) for of in (np.median, np.min, np.max)] if len(known) else [None] * 3
        table.append([name, str(len(known)), *map(_text, values)])
    return table


def coverage_rows(metrics: Metrics) -> Table:
    """List the images and landmarks that an evaluation found on one side only or left out, by short names."""
    listed = {title: metrics.get(key, []) for key, title in _ONE_SIDED_IMAGES.items()}
    known = telling_names([*metrics.get("per_image", ()), *(image for images in listed.values() for image in images)])
    entries = {title: [known[image] for image in images] for title, images in listed.items()}
    entries |= {title: metrics.get(key, []) for key, title in _ONE_SIDED_LANDMARKS.items()}
    rows = [[title, str(len(found)), ", ".join(found)] for title, found in entries.items() if found]
    return [["what", "how many", "which"], *rows]


def write_metrics_json(path: Path | str, metrics: Metrics) -> None:
    """Write the metrics as JSON with all digits, completely or not at all.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not know.
    """
    write_text_atomically(path, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def decimals(value: float, digits: int) -> str:
    """Write a number with some decimals; what rounds to zero has no sign.

    Example:
        >>> decimals(-0.004, 2), decimals(-0.006, 2)
        ('0.00', '-0.01')
    """
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _sdr_title(limit: str) -> str:
    return f"SDR < {limit} mm (%)"


def _values(
    entry: Metrics, limits: Sequence[str], keys: Sequence[str] = tuple(_STATISTICS)
) -> list[tuple[str, float | None, str]]:
    """Title, value and 95 % interval as text, of every statistic and SDR."""
    bounds = entry["interval_95"] or {"mre_mm": None, "sdr_percent": {}}
    statistics = [(_STATISTICS[key], entry[key], _interval(bounds.get(key))) for key in keys]
    rates, rate_bounds = entry["sdr_percent"], bounds["sdr_percent"]
    return statistics + [(_sdr_title(t), rates.get(t), _interval(rate_bounds.get(t))) for t in limits]


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def _with_intervals(entry: Metrics, limits: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [f"{_text(value)} {bounds}".strip() for _, value, bounds in _values(entry, limits, keys)]


def _text(value: float | None) -> str:
    return ABSENT if value is None else decimals(value, 2)


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"
