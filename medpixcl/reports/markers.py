"""Landmarks drawn into a picture: discs, rings and crosses, their numbers, the key to the numbers, the legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.markers

PREDICTED, REFERENCE, CORRECTED = "#E69F00", "#56B4E9", "#F0E442"
"""Okabe and Ito's orange, sky blue and yellow, distinguishable with any colour vision."""
LABEL_SIZE = 6.0
"""Font size in points of the texts at landmarks."""
PicturePoints = Float[np.ndarray, "k 2"]
"""(x, y) of each point in a picture; NaN is not drawn."""


def draw_points(
    axes: "matplotlib.axes.Axes",
    points: PicturePoints,
    unsure: Bool[np.ndarray, " k"],
    reference: PicturePoints | None,
    corrected: Bool[np.ndarray, " k"] | None = None,
) -> None:
    """Draw predicted points as discs, unsure ones as rings, those of a reader as diamonds, and reference points.

    Reference points are crosses joined to the others.
    """
    placed = np.zeros_like(unsure) if corrected is None else corrected
    sure, rings = points[~unsure & ~placed], points[unsure & ~placed]
    if reference is not None:
        join(axes, reference, points, ["white"] * len(points))
    axes.scatter(sure[:, 0], sure[:, 1], s=16, c=PREDICTED, edgecolors="black", linewidths=0.4)
    axes.scatter(rings[:, 0], rings[:, 1], s=22, facecolors="none", edgecolors=PREDICTED, path_effects=rim(1.1))
    if placed.any():
        given = points[placed]
        axes.scatter(given[:, 0], given[:, 1], s=16, c=CORRECTED, marker="D", edgecolors="black", linewidths=0.4)
    if reference is not None:
        axes.scatter(reference[:, 0], reference[:, 1], s=24, c=REFERENCE, marker="+", path_effects=rim(0.8))


def draw_circles(
    axes: "matplotlib.axes.Axes", points: PicturePoints, radii_mm: Float[np.ndarray, " k"], spacing: tuple[float, float]
) -> None:
    """Draw thin circles around points; ``spacing`` is the size in mm of a pixel down and to the right."""
    from matplotlib.patches import Ellipse

    for point, radius in zip(points, radii_mm, strict=True):
        if np.isfinite(point).all() and np.isfinite(radius):
            height, width = 2 * radius / np.array(spacing)
            style: dict[str, Any] = {"fill": False, "edgecolor": PREDICTED, "linewidth": 0.6, "alpha": 0.9}
            axes.add_artist(Ellipse((float(point[0]), float(point[1])), width, height, **style))


def draw_ellipses(axes: "matplotlib.axes.Axes", points: PicturePoints, shapes: Float[np.ndarray, "k 2 2"]) -> None:
    """Draw thin ellipses ``(x - c)^T S^-1 (x - c) = 1`` of shapes S at points c, (x, y) in pixels; NaN is skipped."""
    from matplotlib.patches import Ellipse

    for point, shape in zip(points, shapes, strict=True):
        if np.isfinite(point).all() and np.isfinite(shape).all():
            squares, directions = np.linalg.eigh(shape)
            width, height = 2 * np.sqrt(np.clip(squares, 0, None))
            angle = float(np.degrees(np.arctan2(directions[1, 0], directions[0, 0])))
            style: dict[str, Any] = {"fill": False, "edgecolor": PREDICTED, "linewidth": 0.6, "alpha": 0.9}
            axes.add_artist(Ellipse((float(point[0]), float(point[1])), width, height, angle=angle, **style))


def join(axes: "matplotlib.axes.Axes", starts: PicturePoints, ends: PicturePoints, colours: Sequence[Any]) -> None:
    """Draw a thin line from each start to its end."""
    from matplotlib.collections import LineCollection

    lines = list(np.stack([starts, ends], axis=1))
    axes.add_collection(LineCollection(lines, colors=colours, path_effects=rim(0.7)), autolim=False)


def open_cross(*, oblique: bool) -> "matplotlib.markers.MarkerStyle":
    """Cross with a free middle, which does not hide what it marks; upright or turned by 45 degrees."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    arms = np.stack([0.35 * directions, directions], axis=1).reshape(-1, 2)
    path = Path(arms, [Path.MOVETO, Path.LINETO] * 4)
    return MarkerStyle(path, transform=Affine2D().rotate_deg(45) if oblique else None)


def rim(linewidth: float) -> list[Any]:
    """Path effects that give a line (width in points) black edges, visible on any grey."""
    from matplotlib.patheffects import Stroke

    return [Stroke(linewidth=linewidth + 0.8, foreground="black"), Stroke(linewidth=linewidth)]


def point_legend(
    figure: "matplotlib.figure.Figure", *, sure: bool, unsure: bool, reference: bool, corrected: bool = False
) -> None:
    """Explain the discs, rings, diamonds and crosses that the figure has, below it."""
    from matplotlib.lines import Line2D

    disc: dict[str, Any] = {"color": PREDICTED, "marker": "o", "markersize": 4}
    edge: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.4}
    styles: list[tuple[bool, dict[str, Any]]] = [
        (sure, {"label": "predicted", **edge, **disc}),
        (unsure, {"label": "predicted, unsure", "markerfacecolor": "none", **disc}),
        (corrected, {"label": "placed by a reader", "color": CORRECTED, "marker": "D", "markersize": 4, **edge}),
        (reference, {"label": "reference", "color": REFERENCE, "marker": "+", "markersize": 6}),
    ]
    handles = [Line2D([], [], linestyle="none", **style) for shown, style in styles if shown]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=6.5, frameon=False)


def labels_and_key(count: int, names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Choose texts for the points and the lines of their key; names of up to three letters need no key.

    Example:
        >>> labels_and_key(2, ["sella", "nasion"])
        (['1', '2'], ['1  sella', '2  nasion'])
    """
    if names is not None and all(len(name) <= 3 for name in names):
        return list(names), []
    labels = [str(index + 1) for index in range(count)]
    return labels, [] if names is None else [f"{label}  {name}" for label, name in zip(labels, names, strict=True)]


def key_width(key: Sequence[str], height: float) -> float:
    """Compute the width in inches of the key's columns if they may be ``height`` inches high."""
    return sum((0.052 * max(map(len, column)) + 0.15 for column in _columns(key, height)), start=0.0)


def write_key(axes: "matplotlib.axes.Axes", key: Sequence[str], height: float) -> None:
    """Write the key column by column into empty axes of ``height`` and of the :func:`key_width`."""
    axes.set_axis_off()
    left, width = 0.0, key_width(key, height)
    for column in _columns(key, height):
        text = axes.text(left, 1.0, "\n".join(column), transform=axes.transAxes, fontsize=6, va="top", linespacing=1.5)
        text.set_parse_math(False)
        left += key_width(column, height) / width


def _columns(key: Sequence[str], height: float) -> list[Sequence[str]]:
    lines = max(int(height / 0.13), 1)
    return [key[start : start + lines] for start in range(0, len(key), lines)]


def label_points(
    figure: "matplotlib.figure.Figure",
    axes: Sequence["matplotlib.axes.Axes"],
    places: Sequence[PicturePoints],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Float[np.ndarray, "n 2"]],
) -> None:
    """Write a text beside each point of each picture, clear of other texts, points and edges as far as possible.

    Args:
        figure: Figure of the pictures; everything else must be drawn before, since this fixes the layout.
        axes: Axes of the pictures.
        places: Positions (x, y) of the points in each picture, (K, 2).
        texts: Texts of the K points, the same in all pictures.
        obstacles: Positions of all points drawn in each picture.
    """
    figure.draw_without_rendering()
    inch = 72 / figure.dpi
    for picture, points, drawn in zip(axes, places, obstacles, strict=True):
        shown = ~np.isnan(points).any(axis=1)
        kept = [text for text, show in zip(texts, shown, strict=True) if show]
        anchors, dots = (picture.transData.transform(some) * inch for some in (points[shown], drawn))
        frame = np.array(picture.get_window_extent().extents) * inch
        offsets = label_offsets(anchors, kept, frame, dots[~np.isnan(dots).any(axis=1)], size=LABEL_SIZE)
        for point, offset, text in zip(points[shown], offsets, kept, strict=True):
            _write_label(picture, point, offset, text)


def label_offsets(
    anchors: PicturePoints,
    texts: Sequence[str],
    frame: Float[np.ndarray, " 4"],
    obstacles: Float[np.ndarray, "n 2"],
    *,
    size: float,
) -> list[tuple[float, float]]:
    """Choose the offset of each text's centre from its anchor: the best of 8 directions at 3 distances, in turn.

    Args:
        anchors: Positions of the K points in typographic points (1/72 inch), shape (K, 2).
        texts: Texts of the K points.
        frame: Left, bottom, right and top bounds of the texts, in typographic points.
        obstacles: Positions that the texts should not cover, in typographic points, shape (N, 2).
        size: Font size in points.
    """
    angles = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    boxes = np.empty((0, 4))
    dots = np.concatenate([obstacles - 2, obstacles + 2], axis=1)
    offsets = []
    for anchor, text in zip(anchors, texts, strict=True):
        half = np.array([0.32 * size * len(text), 0.45 * size])
        away = np.concatenate([directions * (half + gap) for gap in (3, 8, 14)])
        candidates = np.concatenate([anchor + away - half, anchor + away + half], axis=1)
        outside = (candidates[:, :2] < frame[:2]).any(axis=1) | (candidates[:, 2:] > frame[2:]).any(axis=1)
        cost = 20 * _overlaps(candidates, boxes) + 10 * _overlaps(candidates, dots) + 15 * outside
        best = int(np.argmin(cost + 0.1 * np.arange(len(away))))
        boxes = np.concatenate([boxes, candidates[best : best + 1]])
        offsets.append((float(away[best, 0]), float(away[best, 1])))
    return offsets


def _overlaps(ours: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, " n"]:
    """Number of other boxes that each of our boxes touches."""
    a, b = ours[:, None], others[None]
    touching = np.all(a[..., :2] < b[..., 2:], axis=-1) & np.all(a[..., 2:] > b[..., :2], axis=-1)
    return touching.sum(axis=1).astype(float)


def _write_label(axes: "matplotlib.axes.Axes", point: np.ndarray, offset: tuple[float, float], text: str) -> None:
    """White text with a black rim; a text that had to move far away gets a line to its point."""
    from matplotlib.patheffects import withStroke

    line = {"arrowstyle": "-", "color": "white", "lw": 0.4, "shrinkA": 3, "shrinkB": 2}
    axes.annotate(
        text,
        (float(point[0]), float(point[1])),
        offset,
        textcoords="offset points",
        fontsize=LABEL_SIZE,
        color="white",
        ha="center",
        va="center",
        path_effects=[withStroke(linewidth=1.4, foreground="black")],
        arrowprops=line if np.hypot(*offset) > 2 * LABEL_SIZE else None,
        annotation_clip=False,
        parse_math=False,
    )
