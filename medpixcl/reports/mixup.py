"""Pictures of mix-up pretraining: mixtures beside the network's outputs, and predicted against true opacity."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from medpixcl._typing import Array
from medpixcl.reports.canvas import NEUTRAL, SERIES, chart, draw_panel, new_figure
from medpixcl.reports.panels import as_array, front_panel

if TYPE_CHECKING:
    import matplotlib.figure


def unmixed_images(
    images: Mapping[str, Shaped[Array, "n ..."]],
    opacity: Shaped[Array, " n"],
    predicted: Shaped[Array, " n"],
) -> "matplotlib.figure.Figure":
    """Draw one row per mixture and one column per kind of image, with the same grey levels in a row.

    Args:
        images: Mapping from column titles to images, shape (N, *spatial); a volume is shown by its middle coronal
            slice.
        opacity: True opacity of the target, shape (N,), written beside the row.
        predicted: Predicted opacity, shape (N,).
    """
    columns = {title: as_array(values) for title, values in images.items()}
    rows, (true, said) = len(opacity), (as_array(opacity), as_array(predicted))
    first = front_panel(next(iter(columns.values()))[0])
    ratio = first.size_mm[0] / first.size_mm[1]
    figure = new_figure(1.6 * len(columns), (1.6 * ratio + 0.25) * rows)
    for row in range(rows):
        low, high = np.percentile([values[row] for values in columns.values()], [0.5, 99.5])
        for column, (title, values) in enumerate(columns.items()):
            axes = figure.add_subplot(rows, len(columns), row * len(columns) + column + 1)
            draw_panel(axes, front_panel(values[row], (low, high)))
            note = f"opacity {true[row]:.2f}, said {said[row]:.2f}" if column == 0 else ""
            axes.set_title(title if row == 0 and not note else f"{title}\n{note}" if row == 0 else note, fontsize=6)
            axes.title.set_color(NEUTRAL)
    return figure


def opacity_agreement(
    predicted: Shaped[Array, " n"], truth: Shaped[Array, " n"], note: str = ""
) -> "matplotlib.figure.Figure":
    """Draw predicted against true opacity, one point per mixture, with the line of agreement.

    Args:
        predicted: Predicted opacities, shape (N,).
        truth: True opacities, shape (N,).
        note: Text above the chart.
    """
    figure, axes = chart(3.4, 3.4, xlabel="true opacity", ylabel="predicted opacity")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8, linestyle=":")
    axes.scatter(as_array(truth), as_array(predicted), s=9, color=SERIES[0], alpha=0.5, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(note, fontsize=8, color=NEUTRAL)
    return figure
