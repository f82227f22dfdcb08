"""Pictures of the exogenous filter: two views with their depth, and the positives of one cell.

See :mod:`medpixcl.reports.figures` for :func:`~medpixcl.reports.figures.figure_to_array` and
:func:`~medpixcl.reports.figures.save_png`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from medpixcl._typing import Array
from medpixcl.reports.canvas import NEUTRAL, SERIES, draw_panel, new_figure
from medpixcl.reports.panels import Panel, PanelView, as_array, as_flags, grey_levels

if TYPE_CHECKING:
    import matplotlib.figure

KEPT, REMOVED, ANCHOR = SERIES[2], SERIES[1], SERIES[4]


@dataclass(frozen=True)
class _Slice:
    """One plane of a view: the view itself in 2D, a slice across the last axis in 3D, the first axis to the right."""

    depth: int | None

    @property
    def view(self) -> PanelView:
        """Orientation of the plane in the picture: radiological convention for an RAS+ volume."""
        return PanelView() if self.depth is None else PanelView(axes=(1, 0), flips=(True, True))

    def picture(self, values: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "rows columns"]:
        """The plane of an image, upright."""
        plane = values if self.depth is None else values[..., self.depth]
        return self.view.flatten(plane, projection="mean")


def depth_views(
    views: Sequence[Shaped[Array, "..."]],
    depths: Sequence[Shaped[Array, "..."]],
    *,
    positives: Shaped[Array, "*cells"] | None = None,
    removed: Shaped[Array, "*cells"] | None = None,
    cell: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    name: str = "depth (mm)",
) -> "matplotlib.figure.Figure":
    """Draw two views of one image above their exogenous channel, with one cell and its positives.

    Each volume is shown in one slice across its last axis: the query view in that of the cell, the anchor view in that
    with most of its positives (the middle one if there are none). Unknown values are white. Both channels have one
    colour scale.

    Args:
        views: Query and anchor view of one shape, (rows, columns) or (i, j, k).
        depths: Channels of the two views, with values first and validity last; the first value of a vector is drawn.
        positives: True for the cells of the anchor view that are positives of ``cell``; covers the view exactly.
        removed: True for cells that are positives by position but were removed by the channel.
        cell: Index of the cell in the query view's grid, which has the shape of ``positives``.
        spacing: Size of a voxel in mm along each array axis; 1 by default.
        name: Name of the channel, with its unit.

    Raises:
        ValueError: If there are not two views with their channels, or positives without their cell.
    """
    images, channels = [as_array(view) for view in views], [as_array(depth) for depth in depths]
    if len(images) != 2 or [depth.shape[1:] for depth in channels] != [image.shape for image in images]:
        raise ValueError(
            f"found views of {[image.shape for image in images]} and channels of {[one.shape for one in channels]}; "
            "expected two views, and for each its values and validity on the same grid."
        )
    masks = [None if mask is None else as_flags(mask) for mask in (positives, removed)]
    if (cell is None) != (masks[0] is None):
        raise ValueError("positives and cell go together; give both or none.")
    cuts = _cuts(images[0].shape, masks, cell)
    figure = new_figure(6.4, 5.8 * _aspect(cuts[0].picture(images[0]), spacing, images[0].ndim) + 0.5)
    axes = figure.subplots(2, 2).tolist()
    for column, (cut, image) in enumerate(zip(cuts, images, strict=True)):
        _draw_view(axes[0][column], cut, image, spacing, ("query view", "anchor view")[column])
    _draw_cells(axes[0], cuts, images[0].shape, masks, cell)
    drawn = _draw_channels(axes[1], cuts, channels, spacing)
    figure.colorbar(drawn, ax=axes[1], fraction=0.03).set_label(name, fontsize=8)
    return figure


def _cuts(shape: Sequence[int], masks: Sequence[np.ndarray | None], cell: Sequence[int] | None) -> list[_Slice]:
    """The plane of the query and of the anchor view."""
    if len(shape) == 2:
        return [_Slice(None)] * 2
    middle = shape[2] // 2
    if cell is None or masks[0] is None:
        return [_Slice(middle)] * 2
    size = shape[2] / masks[0].shape[2]
    counts = sum(mask.sum(axis=(0, 1)) for mask in masks if mask is not None)
    layers = [cell[2], int(np.argmax(counts)) if counts.any() else masks[0].shape[2] // 2]
    return [_Slice(min(int((layer + 0.5) * size), shape[2] - 1)) for layer in layers]


def _aspect(picture: np.ndarray, spacing: Sequence[float] | None, dims: int) -> float:
    """Height over width in mm."""
    down, right = _plane_spacing(spacing, dims)
    return picture.shape[0] * down / (picture.shape[1] * right)


def _plane_spacing(spacing: Sequence[float] | None, dims: int) -> tuple[float, float]:
    sizes = [1.0] * dims if spacing is None else [float(size) for size in spacing]
    return (sizes[0], sizes[1]) if dims == 2 else (sizes[1], sizes[0])


def _draw_view(axes: Any, cut: _Slice, image: np.ndarray, spacing: Sequence[float] | None, title: str) -> None:
    draw_panel(
        axes, Panel(grey_levels(cut.picture(image)), PanelView(title=title), _plane_spacing(spacing, image.ndim))
    )


def _draw_channels(axes: Sequence[Any], cuts: Sequence[_Slice], channels: Sequence[np.ndarray], spacing: Any) -> Any:
    """Both maps with one colour scale; returns what a colour bar is made of."""
    maps = [
        np.where(cut.picture(channel[-1]) > 0, cut.picture(channel[0]), np.nan)
        for cut, channel in zip(cuts, channels, strict=True)
    ]
    known = np.concatenate([values[np.isfinite(values)] for values in maps])
    low, high = np.percentile(known, [1, 99]) if len(known) else (0.0, 1.0)
    down, right = _plane_spacing(spacing, channels[0].ndim - 1)
    for place, values in zip(axes, maps, strict=True):
        drawn = place.imshow(values, cmap="viridis", vmin=low, vmax=max(high, low + 1e-6), aspect=down / right)
        place.set_axis_off()
        place.set_anchor("N")
        share = float(np.isfinite(values).mean())
        place.set_title(f"{100 * share:.0f} % known", fontsize=7, color=NEUTRAL, pad=2)
    return drawn


def _draw_cells(
    axes: Sequence[Any],
    cuts: Sequence[_Slice],
    shape: Sequence[int],
    masks: Sequence[np.ndarray | None],
    cell: Sequence[int] | None,
) -> None:
    """The cell in the query view, its kept and removed positives in the anchor view."""
    kept, removed = masks
    if cell is None or kept is None:
        return
    own = np.zeros(kept.shape, bool)
    own[tuple(cell)] = True
    _fill(axes[0], cuts[0], shape, own, ANCHOR)
    _fill(axes[1], cuts[1], shape, kept, KEPT)
    title = f"anchor view: {int(kept.sum())} positives"
    if removed is not None:
        _fill(axes[1], cuts[1], shape, removed & ~kept, REMOVED)
        title += f", {int((removed & ~kept).sum())} removed"
    axes[0].set_title("query view: the cell", fontsize=7, color=NEUTRAL, pad=2)
    axes[1].set_title(title, fontsize=7, color=NEUTRAL, pad=2)


def _fill(axes: Any, cut: _Slice, shape: Sequence[int], cells: Bool[np.ndarray, "*cells"], colour: str) -> None:
    """Lay the cells of a mask over the picture in one colour."""
    from matplotlib.colors import to_rgb

    layer = None if cut.depth is None else min(int(cut.depth * cells.shape[2] / shape[2]), cells.shape[2] - 1)
    flags = _Slice(layer).picture(cells.astype(np.float32)) > 0
    tint = np.zeros((*flags.shape, 4))
    tint[flags] = (*to_rgb(colour), 0.5)
    rows, columns = cut.picture(np.empty(tuple(shape), np.float32)).shape
    limits = axes.get_xlim(), axes.get_ylim()
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(tint, extent=extent, interpolation="nearest", aspect=axes.get_aspect())
    axes.set(xlim=limits[0], ylim=limits[1])
