"""Figures of the package: landmarks on images, views of pretraining, similarity maps and error curves.

Every function returns a :class:`matplotlib.figure.Figure`; :func:`figure_to_array` takes it to TensorBoard,
:func:`save_png` to a file. Positions are voxel indices in array order. Colours stay apart with any colour vision, and
shapes differ too.
"""

import itertools
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8

from medpixcl._typing import Array
from medpixcl.data.atomic import write_bytes_atomically
from medpixcl.landmarks.metrics import THRESHOLDS_MM
from medpixcl.landmarks.resampling import TIE_MM
from medpixcl.reports.canvas import NEUTRAL, SERIES, chart, draw_panel, new_figure, panel_grid
from medpixcl.reports.markers import (
    REFERENCE,
    draw_circles,
    draw_ellipses,
    draw_points,
    join,
    label_points,
    labels_and_key,
    point_legend,
    rim,
)
from medpixcl.reports.panels import Panel, as_array, as_flags, front_panel, panels

if TYPE_CHECKING:
    import matplotlib.figure


def landmark_overlay(
    image: Shaped[Array, "*s"],
    predicted: Shaped[Array, "k d"],
    *,
    reference: Shaped[Array, "k d"] | None = None,
    names: Sequence[str] | None = None,
    unsure: Shaped[Array, " k"] | Sequence[bool] | None = None,
    corrected: Shaped[Array, " k"] | Sequence[bool] | None = None,
    radii_mm: Shaped[Array, " k"] | None = None,
    regions_mm2: Shaped[Array, "k d d"] | None = None,
    spacing: Sequence[float] | None = None,
    affine: Shaped[Array, "n n"] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw predicted landmarks on their image, numbered from 1, with the reference and lines between them.

    Args:
        image: Image of shape (rows, columns) or (i, j, k); a volume is shown as three projections.
        predicted: Predicted positions in voxels, shape (K, D); a row of NaN is not drawn. All are NaN for a template,
            which has a reference only.
        reference: Reference positions in voxels, shape (K, D), drawn as crosses.
        names: Names of the K landmarks, listed beside the picture; if all have up to three letters, they stand at the
            points.
        unsure: Flags of the K landmarks; unsure points are drawn hollow.
        corrected: True for landmarks that a reader placed, which are drawn as diamonds.
        radii_mm: Radius in mm of a circle around each point, shape (K,), NaN for none.
        regions_mm2: Region around each point along the array axes, shape (K, D, D), as in
            :mod:`medpixcl.landmarks.regions`, NaN for none; a volume shows the outlines of the ellipsoids.
        spacing: Size of a voxel in mm along each array axis.
        affine: Matrix from voxels to RAS+ mm; it replaces ``spacing`` and turns volumes upright.
    """
    points = as_array(predicted)
    truth = None if reference is None else as_array(reference)
    flags, placed = (np.zeros(len(points), bool) if some is None else as_flags(some) for some in (unsure, corrected))
    labels, key = labels_and_key(len(points), names)
    views = panels(image, spacing=spacing, affine=affine)
    figure, axes = panel_grid(views, height=4.6 if len(views) == 1 else 5.6, key=key)
    for place, panel in zip(axes, views, strict=True):
        draw_points(place, panel.place(points), flags, None if truth is None else panel.place(truth), placed)
        if radii_mm is not None:
            draw_circles(place, panel.place(points), as_array(radii_mm), panel.spacing)
        if regions_mm2 is not None:
            draw_ellipses(place, panel.place(points), panel.shadow(as_array(regions_mm2)))
    known = ~np.isnan(points).any(axis=1)
    point_legend(
        figure,
        sure=any(known & ~flags & ~placed),
        unsure=any(known & flags & ~placed),
        corrected=any(known & placed),
        reference=truth is not None,
    )
    at, drawn = points, points
    if truth is not None:
        at, drawn = np.where(np.isnan(points), truth, points), np.concatenate([points, truth])
    places, obstacles = ([panel.place(some) for panel in views] for some in (at, drawn))
    label_points(figure, axes, places, labels, obstacles=obstacles)
    return figure


def matched_views(
    query_view: Shaped[Array, "*s"],
    anchor_view: Shaped[Array, "*s"],
    query_points: Shaped[Array, "k d"],
    positive_points: Shaped[Array, "k d"],
    matched_points: Shaped[Array, "k d"] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw two views of one image side by side, the same pixel in the same colour.

    Args:
        query_view: Query view, shape (rows, columns) or (i, j, k); a volume is shown by its middle slice across j,
            with the points of all slices.
        anchor_view: Anchor view, in the same form.
        query_points: Voxels in the query view, shape (K, D), drawn as discs.
        positive_points: True places in voxels of the anchor view, shape (K, D), drawn as rings.
        matched_points: Places found by the embedding in voxels of the anchor view, shape (K, D), drawn as crosses
            joined to the rings.
    """
    views = [front_panel(view) for view in (query_view, anchor_view)]
    query, positive = views[0].place(as_array(query_points)), views[1].place(as_array(positive_points))
    figure, (left, right) = panel_grid(views, height=3.2)
    left.set_title("query view", fontsize=7, color=NEUTRAL)
    right.set_title("anchor view: true (ring)", fontsize=7, color=NEUTRAL)
    colours = _point_colours(query)
    left.scatter(query[:, 0], query[:, 1], s=16, c=colours, edgecolors="black", linewidths=0.5)
    if matched_points is not None:
        matched = views[1].place(as_array(matched_points))
        right.set_title("anchor view: true (ring), matched (cross)", fontsize=7, color=NEUTRAL)
        join(right, positive, matched, colours)
        right.scatter(matched[:, 0], matched[:, 1], s=16, c=colours, marker="x", path_effects=rim(1.2))
    right.scatter(positive[:, 0], positive[:, 1], s=26, facecolors="none", edgecolors=colours, path_effects=rim(1.2))
    return figure


def similarity_maps(
    image: Shaped[Array, "*s"],
    maps: Shaped[Array, "k ..."],
    points: Shaped[Array, "k d"] | None = None,
    *,
    stride: int | None = None,
) -> "matplotlib.figure.Figure":
    """Draw one panel per map (landmark, or level of the embedding) over the image, bright where most similar.

    Args:
        image: Image of shape (rows, columns) or (i, j, k); a volume is shown by its middle slice across j.
        maps: Similarity maps of any resolution, shape (K, *cells); the maximum along j is shown for a volume.
        points: Match in each map in voxels, shape (K, D).
        stride: Voxels per cell along every axis; by default the cells cover the image exactly.
    """
    panel = front_panel(image)
    columns = min(len(maps), 4)
    rows = -(-len(maps) // columns)
    height, width = panel.size_mm
    figure = new_figure(2.2 * columns, (2.2 * height / width + 0.2) * rows)
    for index, values in enumerate(as_array(maps)):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_panel(axes, panel)
        axes.set_title(str(index + 1), fontsize=7, color=NEUTRAL, pad=2, parse_math=False)
        _draw_map(axes, panel, panel.view.flatten(values, projection="max"), stride)
        if points is not None:
            x, y = panel.place(as_array(points)[index : index + 1])[0]
            axes.scatter([x], [y], s=30, facecolors="none", edgecolors=REFERENCE, linewidths=1.3)
    return figure


def error_curve(
    errors: Shaped[Array, "*n"] | Mapping[str, Shaped[Array, "*n"]],
) -> "matplotlib.figure.Figure":
    """Draw SDR against its threshold: the percentage of measured points whose error is below x mm.

    Dotted lines mark ``THRESHOLDS_MM``; a single curve also has its values there.

    Args:
        errors: Radial errors in mm of any shape, NaN where missing; or a mapping from names to errors, one curve each.
    """
    series = errors if isinstance(errors, Mapping) else {"": errors}
    figure, axes = chart(xlabel="error below (mm)", ylabel="points (%)")
    limit = 2.5 * max(THRESHOLDS_MM)
    for colour, (name, values) in zip(itertools.cycle(SERIES), series.items(), strict=False):
        known = np.sort(as_array(values).ravel())
        known = known[~np.isnan(known)]
        share = 100 * np.arange(len(known) + 1) / max(len(known), 1)
        axes.step([0.0, *known], share, where="post", color=colour, linewidth=1.4, label=name or None)
        for x in THRESHOLDS_MM if len(series) == 1 and len(known) else ():
            y = 100 * float((known < x - TIE_MM).mean())
            axes.plot(x, y, "o", color=colour, markersize=3)
            axes.annotate(f"{y:.1f} % < {x:g} mm", (x, y), (7, -3), textcoords="offset points", fontsize=7, va="top")
    for x in THRESHOLDS_MM:
        axes.axvline(x, color="#BBBBBB", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlim=(0, limit), ylim=(0, 101))
    if len(series) > 1:
        for text in axes.legend(fontsize=7, frameon=False, loc="lower right").get_texts():
            text.set_parse_math(False)
    return figure


def confidence_against_error(
    scores: Shaped[Array, "*n"], errors: Shaped[Array, "*n"], *, unsure: Shaped[Array, "*n"] | None = None
) -> "matplotlib.figure.Figure":
    """Draw each point's error against the confidence of its match, and the median error by confidence.

    With a useful confidence the line falls. Errors are on a logarithmic axis; those below 0.1 mm are drawn at 0.1 mm.

    Args:
        scores: Confidence of each point, any shape.
        errors: Radial errors in mm, same shape; points without an error are left out.
        unsure: Flags of the points, same shape; unsure points are drawn hollow.
    """
    confidence, distance = as_array(scores).ravel(), np.maximum(as_array(errors).ravel(), 0.1)
    flags = np.zeros(len(distance), bool) if unsure is None else as_flags(unsure).ravel()
    known = ~np.isnan(distance) & ~np.isnan(confidence)
    figure, axes = chart(xlabel="confidence of the match", ylabel="error (mm)")
    for some, face, label in ((~flags, SERIES[0], "sure"), (flags, "none", "flagged unsure")):
        shown = known & some
        if shown.any():
            axes.scatter(
                confidence[shown],
                distance[shown],
                s=9,
                facecolors=face,
                edgecolors=SERIES[0],
                alpha=0.5,
                linewidths=0.6,
                label=label,
            )
    if known.sum() >= 20:
        order = np.argsort(confidence[known])
        groups = np.array_split(order, min(10, int(known.sum()) // 10))
        middle = [[np.median(values[known][group]) for group in groups] for values in (confidence, distance)]
        axes.plot(*middle, color=SERIES[1], marker="s", markersize=3, linewidth=1.4, label="median of equal groups")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if known.any():
        axes.legend(fontsize=7, frameon=False)
    return figure


def figure_to_array(figure: "matplotlib.figure.Figure") -> UInt8[np.ndarray, "3 h w"]:
    """Render a figure as an array with channels first, for TensorBoard's ``add_image``."""
    figure.canvas.draw()
    rgba = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    return np.ascontiguousarray(rgba[..., :3].transpose(2, 0, 1))


def figure_to_png(figure: "matplotlib.figure.Figure") -> bytes:
    """Render a figure as the bytes of a PNG file; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save_png(figure: "matplotlib.figure.Figure", path: Path | str) -> None:
    """Write a figure as a PNG file, completely or not at all; makes missing folders."""
    write_bytes_atomically(path, figure_to_png(figure))


def _point_colours(points: np.ndarray) -> list[Any]:
    """Colours from top to bottom of the picture."""
    from matplotlib import colormaps

    ranks = points[:, 1].argsort().argsort()
    return list(colormaps["plasma"](0.15 + 0.8 * ranks / max(len(points) - 1, 1)))


def _draw_map(axes: Any, panel: Panel, cells: np.ndarray, stride: int | None) -> None:
    """Lay a grid of cells over the picture, its first cell on the image's first voxel."""
    spans = []
    for size, count, flip in zip(panel.picture.shape, cells.shape, panel.view.flips, strict=True):
        end = size - 0.5 if stride is None else count * stride - 0.5
        spans.append((size - 1 - end, size - 0.5) if flip else (-0.5, end))
    (top, bottom), (left, right) = spans
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(cells, cmap="inferno", alpha=0.6, extent=(left, right, bottom, top), aspect=axes.get_aspect())
    axes.set(xlim=limits[0], ylim=limits[1])
