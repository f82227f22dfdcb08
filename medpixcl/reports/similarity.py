"""Curves of the similarity to the positive, or of the loss, against the informativeness of pixels.

Positions on the horizontal axis are mean entropies in bits, one per bin. See :mod:`medpixcl.reports.figures` for
:func:`~medpixcl.reports.figures.figure_to_array` and :func:`~medpixcl.reports.figures.save_png`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Shaped

from medpixcl._typing import Array
from medpixcl.reports.canvas import NEUTRAL, SERIES, chart
from medpixcl.reports.panels import as_array

if TYPE_CHECKING:
    import matplotlib.figure


def similarity_over_informativeness(
    informativeness: Shaped[Array, " n"],
    similarity: Mapping[str, Shaped[Array, " n"]],
    counts: Shaped[Array, " n"],
    *,
    cuts: Sequence[float] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw the similarity of positive pairs against informativeness (the paper's PSI): low is easy, medium is hard.

    Args:
        informativeness: Mean informativeness of each bin in bits, shape (N,).
        similarity: Mapping from names to the mean similarity of each bin, shape (N,).
        counts: Number of pairs in each bin, shape (N,), drawn as bars behind.
        cuts: Bounds in bits between the classes, drawn as lines.

    Reference: arXiv 2211.07118, figure of the positive similarity.
    """
    return _curves(informativeness, similarity, counts, cuts=cuts, ylabel="cosine of positive pairs")


def loss_over_informativeness(
    informativeness: Shaped[Array, " n"],
    loss: Shaped[Array, " n"],
    counts: Shaped[Array, " n"],
    *,
    cuts: Sequence[float] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw the running loss of the pairs against informativeness, with its mean and the bounds of the classes.

    Args:
        informativeness: Mean informativeness of each bin in bits, shape (N,).
        loss: Mean loss of each bin, shape (N,).
        counts: Number of pairs in each bin, shape (N,), drawn as bars behind.
        cuts: Bounds in bits between the classes, drawn as lines.
    """
    numbers, weights = as_array(loss), as_array(counts)
    figure = _curves(informativeness, {"loss": numbers}, weights, cuts=cuts, ylabel="loss of a pair")
    if weights.sum() > 0:
        mean = float((numbers * weights).sum() / weights.sum())
        figure.axes[0].axhline(mean, color=NEUTRAL, linewidth=0.8, linestyle="--", label="mean")
        figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


def _curves(
    informativeness: Shaped[Array, " n"],
    series: Mapping[str, Shaped[Array, " n"]],
    counts: Shaped[Array, " n"],
    *,
    cuts: Sequence[float] | None,
    ylabel: str,
) -> "matplotlib.figure.Figure":
    figure, axes = chart(xlabel="informativeness (bits)", ylabel=ylabel)
    bits = as_array(informativeness)
    for colour, (name, values) in zip(itertools.cycle(SERIES), series.items(), strict=False):
        axes.plot(bits, as_array(values), color=colour, marker="o", markersize=3, linewidth=1.4, label=name)
    for cut in cuts or ():
        axes.axvline(cut, color=NEUTRAL, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{cut:.2f}", (cut, 1), (2, -8), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7
        )
    if series:
        axes.legend(fontsize=7, frameon=False)
    if len(bits):
        pairs = axes.twinx()
        width = float((bits.max() - bits.min()) / max(len(bits), 2)) or 0.1
        pairs.bar(bits, as_array(counts), width=width, color="#DDDDDD", zorder=0)
        pairs.set_ylabel("pairs", fontsize=8)
        pairs.tick_params(labelsize=7)
        pairs.spines["top"].set_visible(False)
        # The curves stand before the bars.
        axes.set_zorder(pairs.get_zorder() + 1)
        axes.patch.set_visible(False)
    return figure
