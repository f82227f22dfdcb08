"""Many images with their landmarks side by side, to see at one glance how good they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from medpixcl._typing import Array
from medpixcl.reports.canvas import NEUTRAL, draw_panel, new_figure
from medpixcl.reports.markers import draw_points, point_legend
from medpixcl.reports.panels import as_array, panels

if TYPE_CHECKING:
    import matplotlib.figure

_COLUMNS = 4
SIDE_INCHES = 2.0


def landmark_wall(
    images: Sequence[Shaped[Array, "h w"]],
    predicted: Sequence[Shaped[Array, "k 2"]],
    reference: Sequence[Shaped[Array, "k 2"]],
    *,
    titles: Sequence[str],
) -> "matplotlib.figure.Figure":
    """Predicted landmarks and the reference on several radiographs, joined by lines; a line is the error.

    Args:
        images: N radiographs of (rows, columns).
        predicted: For each radiograph, voxel positions (K, 2); NaN is not drawn.
        reference: For each radiograph, the true positions (K, 2); NaN where there is none.
        titles: N lines, one above each radiograph.
    """
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(SIDE_INCHES * columns, (SIDE_INCHES + 0.2) * rows + 0.2)
    for number, (image, points, truth, title) in enumerate(zip(images, predicted, reference, titles, strict=True), 1):
        (panel,) = panels(image)
        axes = figure.add_subplot(rows, columns, number)
        draw_panel(axes, panel)
        axes.set_title(title, fontsize=7, color=NEUTRAL, pad=2, parse_math=False)
        found = as_array(points)
        draw_points(axes, panel.place(found), np.zeros(len(found), bool), panel.place(as_array(truth)))
    point_legend(figure, sure=True, unsure=False, reference=True)
    return figure
