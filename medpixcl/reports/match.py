"""Build the report of a matching run from its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from medpixcl._typing import Array
from medpixcl.data.identity import short_name, telling_names
from medpixcl.reports.figures import confidence_against_error, error_curve
from medpixcl.reports.html import MatchReport, Picture
from medpixcl.reports.panels import as_array, as_flags
from medpixcl.reports.tables import landmark_summary_rows

if TYPE_CHECKING:
    import matplotlib.figure


def match_report(
    *,
    title: str,
    templates: Sequence[str],
    images: Sequence[str],
    names: Sequence[str],
    scores: Shaped[Array, "n k"],
    unsure: Shaped[Array, "n k"],
    draw: Callable[[str], "matplotlib.figure.Figure | bytes"],
    draw_planes: Callable[[str], "matplotlib.figure.Figure | bytes"] | None = None,
    facts: Mapping[str, str],
    metrics: Mapping[str, Any] | None = None,
    template_pictures: Sequence[Picture] = (),
    rejected: Mapping[str, str] = MappingProxyType({}),
    warnings: Sequence[str] = (),
    comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
    pictures: Sequence[Picture] = (),
    habit_table: Sequence[Sequence[str]] = (),
    region_table: Sequence[Sequence[str]] = (),
    cases: int = 3,
    sheets: int = 4,
) -> MatchReport:
    """Fill a :class:`~medpixcl.reports.html.MatchReport`: tables, plots, the best and the worst images.

    Folders are removed from the names of images, as they often carry names of people, unless they alone tell two images
    apart (:func:`~medpixcl.data.identity.telling_names`).

    Args:
        title: Heading of the page.
        templates: Paths of the annotated images; none for a detection.
        images: Paths of the N matched images, without the templates.
        names: Names of the K landmarks.
        scores: Confidence of each landmark, shape (N, K), NaN where it was not found.
        unsure: Flags of unsure landmarks, shape (N, K).
        draw: Function that returns the picture of an image, usually a
            :func:`~medpixcl.reports.figures.landmark_overlay` (or the bytes of a PNG or JPEG file); called for the
            shown images only.
        draw_planes: Function that returns the picture of the slices of a volume, usually
            :func:`~medpixcl.reports.planes.landmark_planes`; called for the worst images only.
        facts: Facts about the run by name, shown as given.
        metrics: Result of :func:`~medpixcl.data.landmarks.comparison.evaluate_positions` with the keys ``images``.
        template_pictures: Pictures of the templates with their landmarks, in the order of ``templates``.
        rejected: Mapping from images left out to the reason.
        warnings: Warnings to the reader, shown as given.
        comparisons: Name and metrics of other methods.
        pictures: Pictures shown before the plots of the error.
        habit_table: Rows of :func:`~medpixcl.reports.tables.habit_rows`.
        region_table: Rows of :func:`~medpixcl.reports.tables.region_rows`.
        cases: Number of best and of worst images to show.
        sheets: Number of images whose slices are shown: of largest error with a reference, else with most unsure
            landmarks.

    Raises:
        ValueError: If the scores, flags or metrics do not belong to the images and landmarks.
    """
    confidence, flags = as_array(scores), as_flags(unsure)
    if not confidence.shape == flags.shape == (len(images), len(names)):
        raise ValueError(
            f"scores have shape {confidence.shape}, flags {flags.shape}; "
            f"expected {len(images)} images x {len(names)} landmarks for both."
        )
    errors = None if metrics is None else error_array(metrics, images, names)
    measure = _row_means(confidence if errors is None else errors)
    worst, best = extremes(measure if errors is None else -measure, count=cases)
    known = telling_names([*templates, *images, *rejected])
    label = "mean confidence {:.2f}" if errors is None else "MRE {:.2f} mm"
    captions = [
        known[image] if np.isnan(value) else f"{known[image]}: {label.format(value)}"
        for image, value in zip(images, measure, strict=True)
    ]
    shown = {n: Picture(image=draw(images[n]), caption=captions[n]) for n in (*worst, *best)}
    return MatchReport(
        title=title,
        template_names=[known[one] for one in templates],
        template_pictures=[
            replace(picture, caption=f"{known[one]} with its landmarks")
            for one, picture in zip(templates, template_pictures, strict=True)
        ],
        facts=facts,
        landmark_table=landmark_summary_rows(names, confidence, flags, metrics),
        metrics=metrics,
        plots=[*pictures, *(() if errors is None else _plots(confidence, errors, flags))],
        worst=[shown[n] for n in worst],
        best=[shown[n] for n in best],
        planes=[]
        if draw_planes is None
        else [
            Picture(image=draw_planes(images[n]), caption=captions[n])
            for n in _most_doubtful(errors, confidence, flags)[:sheets]
        ],
        images=len(images),
        flagged=[
            (known[image], [name for name, flag in zip(names, row, strict=True) if flag])
            for image, row in zip(images, flags, strict=True)
            if row.any()
        ],
        rejected=[(known[path], reason.replace(path, known[path])) for path, reason in rejected.items()],
        warnings=warnings,
        comparisons=comparisons,
        habit_table=habit_table,
        region_table=region_table,
    )


def error_array(metrics: Mapping[str, Any], images: Sequence[str], names: Sequence[str]) -> Float[np.ndarray, "n k"]:
    """Collect the radial errors in mm of an evaluation, shape (N, K); NaN where it has none.

    Raises:
        ValueError: If the evaluation holds an image that is not among ``images``.
    """
    if unknown := metrics["per_image"].keys() - set(images):
        raise ValueError(
            f"the metrics hold {len(unknown)} images that are not reported, {short_name(min(unknown))} among them; "
            "expected the metrics of the reported images under the same paths."
        )
    entries = [metrics["per_image"].get(image, {"errors_mm": {}})["errors_mm"] for image in images]
    values = [[entry.get(name, np.nan) for name in names] for entry in entries]
    return np.array(values, dtype=float).reshape(len(images), len(names))


def extremes(quality: Float[np.ndarray, " n"], *, count: int) -> tuple[list[int], list[int]]:
    """Find the indices of the ``count`` lowest and highest values, most extreme first, without repeats and NaN.

    Example:
        >>> extremes(np.array([3.0, np.nan, 1.0, 2.0]), count=2)
        ([2], [0, 3])
    """
    order = [int(index) for index in np.argsort(quality) if not np.isnan(quality[index])]
    low = min(count, len(order) // 2)
    return order[:low], order[low:][::-1][:count]


def _most_doubtful(
    errors: Float[np.ndarray, "n k"] | None, confidence: Float[np.ndarray, "n k"], flags: Bool[np.ndarray, "n k"]
) -> list[int]:
    """Numbers of all images, those of largest mean error first, without errors those with most unsure landmarks."""
    mean_error = np.zeros(len(flags)) if errors is None else np.nan_to_num(_row_means(errors))
    return [int(n) for n in np.lexsort((_row_means(confidence), -flags.sum(axis=1), -mean_error))]


def _row_means(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Mean of each row over what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _plots(confidence: Float[np.ndarray, "n k"], errors: Float[np.ndarray, "n k"], flags: np.ndarray) -> list[Picture]:
    if np.isnan(errors).all():
        return []
    return [
        Picture(
            image=error_curve(errors),
            caption="Share of points by error.",
            alt="Curve: percentage of points with an error below each distance in mm; values in the table above.",
        ),
        Picture(
            image=confidence_against_error(confidence, errors, unsure=flags),
            caption="Error against confidence. A line that falls means that the confidence can be trusted.",
            alt="Scatter plot: error in mm of every point against the confidence of its match.",
        ),
    ]
