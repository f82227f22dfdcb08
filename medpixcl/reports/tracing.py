"""Cephalometric tracing: outline, planes, angles and landmarks over the radiograph, with the values beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Shaped

from medpixcl._typing import Array
from medpixcl.landmarks.cephalometry import Measurement, cephalometric_values, classifications, classify, measurements
from medpixcl.landmarks.cephalometry.definitions import UNITS
from medpixcl.reports.canvas import NEUTRAL, draw_panel, new_figure
from medpixcl.reports.markers import PREDICTED, label_offsets, rim
from medpixcl.reports.panels import Panel, as_array, panels

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

NamedPicturePoints = Mapping[str, Float[np.ndarray, "2"]]
"""Abbreviation of each present landmark to its position (x, y) in the picture."""


@dataclass(frozen=True)
class Plane:
    """A line of the tracing through two landmarks, extended by some mm beyond the second."""

    name: str
    start: str
    end: str
    colour: str
    dashed: bool = False
    beyond_mm: float = 12.0


@dataclass(frozen=True)
class Mark:
    """A text at a place (x, y) of the picture, and the line that other texts should not cover."""

    place: Float[np.ndarray, "2"]
    text: str
    colour: str = "white"
    line: Float[np.ndarray, "n 2"] | None = None


PLANES = (
    Plane("SN", "S", "N", "#56B4E9"),
    Plane("FH", "Po", "Or", "#E69F00"),
    Plane("PP", "PNS", "ANS", "#3FD0A0"),
    Plane("MP", "Go", "Me", "#FF7A3D"),
    Plane("N-Pog", "N", "Pog", "#FFFFFF", dashed=True, beyond_mm=18.0),
    Plane("N-A", "N", "A", "#F0E442", beyond_mm=9.0),
    Plane("N-B", "N", "B", "#F4A6D0", beyond_mm=8.0),
    Plane("Y", "S", "Gn", "#CCCCCC", dashed=True, beyond_mm=7.0),
    Plane("E line", "Prn", "Pog'", "#D9A8FF", dashed=True),
    Plane("Sn-Pog'", "Sn", "Pog'", "#D9A8FF", dashed=True),
)
OUTLINES = (
    ("N", "S", "Ar", "Go", "Me", "Gn", "Pog", "B", "L1"),
    ("L1A", "L1"),
    ("PNS", "ANS", "A"),
    ("U1A", "U1"),
)
PROFILE = ("Prn", "Sn", "Ls", "Li", "Pog'")
ARCS = (
    ("SNA", ("S", "N", "A"), 16.0, "#F0E442"),
    ("SNB", ("S", "N", "B"), 24.0, "#F4A6D0"),
    ("ANB", ("A", "N", "B"), 40.0, "#FFFFFF"),
    ("Gonial angle", ("Ar", "Go", "Me"), 9.0, "#FFFFFF"),
)
"""Measurement, its three landmarks, radius of its arc in mm, colour."""
LISTED = (
    *("SNA", "SNB", "ANB", "Facial angle", "Convexity", "MM-Wits", "APDI"),
    *("FMA", "SN-GoGn", "SN-PP", "PP-MP", "Y axis", "Gonial angle", "Björk sum", "ODI"),
    *("Jarabak ratio", "LAFH ratio", "AFH", "PFH", "SN length"),
    *("U1-NA mm", "L1-NB mm", "Overjet", "Overbite", "U1-SN", "IMPA", "Interincisal"),
    *("Ls-E line", "Li-E line", "Ls-SnPog'", "Li-SnPog'"),
)
"""Measurements written beside the picture, those that can be computed."""
CLASSES = ("Skeletal class (ANB)", "Growth (Jarabak)")
_BEYOND_MM = 12.0
_RAISED, _LOWERED = "#D55E00", "#0072B2"
_MARK_SIZE = 6.5
"""Font size in points of the values written into the tracing."""


def cephalometric_tracing(
    image: Shaped[Array, "rows columns"],
    points: Shaped[Array, "k 2"],
    roles: Sequence[str | None],
    *,
    spacing: Sequence[float],
    title: str = "",
) -> "matplotlib.figure.Figure":
    """Draw the tracing of one cephalogram with its measurements and their norms.

    Lines and values that need a missing landmark are left out. Without the tip of the nose, the line Sn-Pog' replaces
    the E line.

    Args:
        image: Image of shape (rows, columns), without channel axis.
        points: Landmarks in voxels (row, column), shape (K, 2), NaN where missing.
        roles: Abbreviation of each landmark, None for others, which are not drawn; see
            :func:`~medpixcl.landmarks.cephalometry.landmark_roles`.
        spacing: Size of a pixel in mm, (row, column).
        title: Title above the picture.
    """
    panel = panels(image, spacing=spacing)[0]
    voxels = as_array(points).astype(np.float64)
    values = cephalometric_values(torch.from_numpy(voxels * np.asarray(spacing, dtype=np.float64))[None], roles)
    there = [role is not None and bool(np.isfinite(voxel).all()) for role, voxel in zip(roles, voxels, strict=True)]
    places = {str(role): place for role, place, shown in zip(roles, panel.place(voxels), there, strict=True) if shown}
    figure, picture, table = _canvas(panel)
    figure.suptitle(title, fontsize=8, parse_math=False)
    draw_panel(picture, panel)
    limits = picture.get_xlim(), picture.get_ylim()
    picture.axvspan(*limits[0], color="black", alpha=0.25, zorder=1, linewidth=0)  # bone is as bright as the lines
    by_name = dict(zip([one.name for one in measurements()], values[0].tolist(), strict=True))
    marks = [Mark(place, name) for name, place in places.items()]
    _draw_outlines(picture, places)
    marks += _draw_planes(picture, panel, places)
    marks += _draw_arcs(picture, panel, places, by_name)
    _draw_landmarks(picture, places)
    _draw_scale(picture, panel)
    picture.set(xlim=limits[0], ylim=limits[1])
    _write_values(table, by_name, _class_lines(values))
    _write_marks(figure, picture, marks)
    return figure


def _canvas(panel: Panel) -> tuple["matplotlib.figure.Figure", "matplotlib.axes.Axes", "matplotlib.axes.Axes"]:
    """Figure with the picture, 6.4 inches high or 5.4 wide, and the column of the values."""
    height, width = panel.size_mm
    scale = min(6.4 / height, 5.4 / width)
    figure = new_figure(width * scale + 2.2, max(height * scale, 4.8) + 0.3)
    grid = figure.add_gridspec(1, 2, width_ratios=[width * scale, 2.1])
    return figure, figure.add_subplot(grid[0]), figure.add_subplot(grid[1])


def _draw_outlines(axes: "matplotlib.axes.Axes", places: NamedPicturePoints) -> None:
    """Draw lines along bone as solid white, and the soft-tissue profile as dotted."""
    for names, style in [*[(names, "-") for names in OUTLINES], (PROFILE, ":")]:
        line = np.array([places[name] for name in names if name in places]).reshape(-1, 2)
        axes.plot(*line.T, linestyle=style, color="white", linewidth=1.0, alpha=0.75, zorder=2)


def _draw_planes(axes: "matplotlib.axes.Axes", panel: Panel, places: NamedPicturePoints) -> list[Mark]:
    """Every plane through its two landmarks and some way beyond them; the mark is its name, at the end."""
    marks = []
    for plane in PLANES:
        if plane.start not in places or plane.end not in places or (plane.name == "Sn-Pog'" and "Prn" in places):
            continue
        start, end = places[plane.start], places[plane.end]
        long = max(float(np.linalg.norm((end - start) * _mm(panel))), 1e-6)
        beyond = (end - start) / long
        tips = np.stack([start - (0 if plane.start == "N" else _BEYOND_MM) * beyond, end + plane.beyond_mm * beyond])
        tips = np.clip(tips, 4, np.array(panel.picture.shape[::-1]) - 5)
        axes.plot(
            *tips.T,
            color=plane.colour,
            linewidth=0.9,
            linestyle=(0, (4, 3)) if plane.dashed else "-",
            path_effects=None if plane.dashed else rim(0.9),
            zorder=3,
        )
        samples = tips[0] + np.linspace(0, 1, max(int(long / 4), 2))[:, None] * (tips[1] - tips[0])
        marks.append(Mark(tips[1], plane.name, plane.colour, samples))
    return marks


def _draw_arcs(
    axes: "matplotlib.axes.Axes", panel: Panel, places: NamedPicturePoints, values: Mapping[str, float]
) -> list[Mark]:
    """Arcs between the legs of the angles; the marks are their values."""
    marks = []
    for name, corners, radius, colour in ARCS:
        if not all(corner in places for corner in corners) or np.isnan(values[name]):
            continue
        first, vertex, last = (places[corner] * _mm(panel) for corner in corners)
        start, sweep = _sweep(first - vertex, last - vertex)
        angles = start + sweep * np.linspace(0, 1, 41)
        arc = (vertex + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)) / _mm(panel)
        axes.plot(*arc.T, color=colour, linewidth=0.9, path_effects=rim(0.9), zorder=3)
        marks.append(Mark(arc[20], f"{name.removesuffix(' angle')} {values[name]:.1f}°", colour, arc[::8]))
    return marks


def _sweep(first: Float[np.ndarray, "2"], last: Float[np.ndarray, "2"]) -> tuple[float, float]:
    """Direction of the first leg, and the turn of less than half a circle to the last, in radians."""
    start, end = (float(np.arctan2(leg[1], leg[0])) for leg in (first, last))
    return start, (end - start + np.pi) % (2 * np.pi) - np.pi


def _draw_landmarks(axes: "matplotlib.axes.Axes", places: NamedPicturePoints) -> None:
    points = np.array([*places.values()]).reshape(-1, 2)
    axes.scatter(points[:, 0], points[:, 1], s=11, c=PREDICTED, edgecolors="black", linewidths=0.5, zorder=4)


def _draw_scale(axes: "matplotlib.axes.Axes", panel: Panel) -> None:
    """A bar of 20 mm in the lower right corner."""
    rows, columns = panel.picture.shape
    right, y, width = 0.97 * columns, 0.975 * rows, 20 / panel.spacing[1]
    axes.plot([right - width, right], [y, y], color="white", linewidth=1.6, path_effects=rim(1.6), zorder=3)
    _write(axes, np.array([right - width / 2, y - 0.018 * rows]), "20 mm", "white", size=6.0)


def _write(axes: "matplotlib.axes.Axes", place: Float[np.ndarray, "2"], text: str, colour: str, *, size: float) -> None:
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=1.8, foreground="black")]
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "parse_math": False}
    axes.text(float(place[0]), float(place[1]), text, color=colour, path_effects=effects, zorder=5, **style)


def _write_marks(figure: "matplotlib.figure.Figure", axes: "matplotlib.axes.Axes", marks: Sequence[Mark]) -> None:
    """Write the texts beside their places, clear of one another, of the landmarks and of the lines where possible."""
    figure.draw_without_rendering()
    inch = 72 / figure.dpi
    dots = [mark.place[None] if mark.line is None else mark.line for mark in marks]
    anchors, drawn = (
        axes.transData.transform(np.concatenate([*some, np.empty((0, 2))])) * inch
        for some in ([mark.place[None] for mark in marks], dots)
    )
    frame = np.array(axes.get_window_extent().extents) * inch
    texts = [mark.text for mark in marks]
    for mark, anchor, offset in zip(
        marks, anchors, label_offsets(anchors, texts, frame, drawn, size=_MARK_SIZE), strict=True
    ):
        place = axes.transData.inverted().transform((anchor + offset) / inch)
        _write(axes, place, mark.text, mark.colour, size=_MARK_SIZE)


def _write_values(axes: "matplotlib.axes.Axes", values: Mapping[str, float], classes: Sequence[str]) -> None:
    """A column of names, values and norms, with an arrow where a value lies outside what is usual."""
    shown = [one for one in measurements() if one.name in LISTED and not np.isnan(values[one.name])]
    shown.sort(key=lambda one: LISTED.index(one.name))
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(37, -1))
    for line, text in enumerate(classes):
        axes.text(0, line, text, fontsize=8, weight="bold", va="center", parse_math=False)
    top = len(classes) + 0.6
    for x, title in ((0, ""), (0.64, "value"), (0.72, "usual")):
        style: dict[str, Any] = {"fontsize": 6.5, "va": "center", "color": NEUTRAL}
        axes.text(x, top, title, ha="right" if x == 0.64 else "left", **style)
    for line, one in enumerate(shown):
        _write_row(axes, top + 1 + line, one, values[one.name])
    note = "▲ ▼ outside the usual range, or by more\nthan one standard deviation from the mean"
    axes.text(0, top + 2 + len(shown), note, fontsize=6, color=NEUTRAL, va="top", linespacing=1.5)


def _write_row(axes: "matplotlib.axes.Axes", y: float, one: Measurement, value: float) -> None:
    side = outside(one, value)
    colour = {1: _RAISED, -1: _LOWERED, 0: "black"}[side]
    style: dict[str, Any] = {"fontsize": 7, "va": "center", "parse_math": False}
    axes.text(0, y, one.name, **style)
    unit = UNITS[one.unit]
    number = f"{value:.1f}{unit if unit == '°' else ' ' + unit}"
    axes.text(0.64, y, number, color=colour, ha="right", weight="bold" if side else "normal", **style)
    axes.text(0.665, y, {1: "▲", -1: "▼", 0: ""}[side], color=colour, ha="left", fontsize=5, va="center")
    axes.text(0.72, y, "" if one.norm is None else str(one.norm), color=NEUTRAL, **{**style, "fontsize": 6})


def outside(one: Measurement, value: float) -> int:
    """Compare a value with its usual range (or one standard deviation): 1 above, -1 below, 0 within or no norm."""
    norm = one.norm
    if norm is None or np.isnan(value):
        return 0
    low, high = norm.low, norm.high
    if norm.mean is not None and norm.sd is not None:
        low, high = norm.mean - norm.sd, norm.mean + norm.sd
    return 0 if low is None or high is None else int(value > high) - int(value < low)


def _class_lines(values: Float[torch.Tensor, "1 m"]) -> list[str]:
    """Text with the classes that can be determined."""
    found = zip(classifications(), classify(values)[0].tolist(), strict=True)
    return [f"{one.name}: {one.labels[place]}" for one, place in found if one.name in CLASSES and place >= 0]


def _mm(panel: Panel) -> Float[np.ndarray, "2"]:
    """Size in mm of a pixel to the right and down."""
    return np.array(panel.spacing[::-1], dtype=np.float64)
