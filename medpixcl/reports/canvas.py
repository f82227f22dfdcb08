"""Base of every figure: an empty figure, a chart, a grid of pictures at one scale.

Figures are :class:`matplotlib.figure.Figure` objects without pyplot, so they need no display and leave no global state.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medpixcl.reports.markers import key_width, write_key
from medpixcl.reports.panels import Panel

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

NEUTRAL = "#444444"
SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's colours, distinguishable with any colour vision."""
DPI = 150


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """Create an empty figure of a size in inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def chart(width: float = 5.0, height: float = 3.4, *, xlabel: str, ylabel: str) -> tuple[Any, "matplotlib.axes.Axes"]:
    """Create a figure with one plain set of axes and a light grid."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    style_chart(axes, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def style_chart(axes: "matplotlib.axes.Axes", *, xlabel: str, ylabel: str) -> None:
    """Style axes: light grid, no box, small letters."""
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def panel_grid(
    views: Sequence[Panel], *, height: float, key: Sequence[str] = ()
) -> tuple["matplotlib.figure.Figure", list["matplotlib.axes.Axes"]]:
    """Draw pictures at one scale: side by side, or the three of a volume in a square.

    Args:
        views: One or two panels, or the axial, coronal and sagittal panel of a volume.
        height: Height of all pictures in inches; it is reduced if the grid would be wider than 6.5 inches.
        key: Lines written into the free corner of a volume's square, or into a column at the right.

    Returns:
        Figure, and the axes of each drawn panel.
    """
    places = [(1, 0), (0, 0), (0, 1)] if len(views) == 3 else [(0, column) for column in range(len(views))]
    heights, widths = ([0.0] * (1 + max(place[side] for place in places)) for side in (0, 1))
    for (row, column), panel in zip(places, views, strict=True):
        heights[row] = max(heights[row], panel.size_mm[0])
        widths[column] = max(widths[column], panel.size_mm[1])
    scale = min(height / sum(heights), 6.5 / sum(widths))
    heights, widths = [side * scale for side in heights], [side * scale for side in widths]
    corner = len(views) == 3 and key_width(key, heights[1]) <= widths[1]
    columns = widths if corner or not key else [*widths, key_width(key, sum(heights))]
    figure = new_figure(max(sum(columns), 2.5) + 0.1 * len(columns), sum(heights) + 0.4)
    grid = figure.add_gridspec(len(heights), len(columns), width_ratios=columns, height_ratios=heights)
    axes = [figure.add_subplot(grid[place]) for place in places]
    for place, panel in zip(axes, views, strict=True):
        draw_panel(place, panel)
    if key:
        write_key(
            figure.add_subplot(grid[1 if corner else slice(None), -1]), key, heights[1] if corner else sum(heights)
        )
    return figure, axes


def draw_panel(axes: "matplotlib.axes.Axes", panel: Panel) -> None:
    """Draw the grey picture at its true proportions, with its title and anatomical letters."""
    from matplotlib.patheffects import withStroke

    axes.imshow(panel.picture, cmap="gray", vmin=0, vmax=1, aspect=panel.spacing[0] / panel.spacing[1])
    axes.set_axis_off()
    axes.set_anchor("N")
    axes.set_title(panel.view.title, fontsize=7, color=NEUTRAL, pad=2)
    style: dict[str, Any] = {"color": "white", "alpha": 0.7, "fontsize": 6, "ha": "center", "va": "center"}
    rim = [withStroke(linewidth=1, foreground="black")]
    for letter, place in zip(panel.view.ends, ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02)), strict=False):
        axes.text(*place, letter, transform=axes.transAxes, path_effects=rim, **style)
