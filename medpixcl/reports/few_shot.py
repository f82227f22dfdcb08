"""Few-shot curve: the error of detectors against the number of annotated training images."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medpixcl.reports.canvas import NEUTRAL, SERIES, chart

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_MARKERS = "os^Dv"


@dataclass(frozen=True)
class FewShotResult:
    """Result of one training.

    Attributes:
        images: Number of annotated training images.
        start: Name of the weights that the training started from, equal for all trainings of one curve.
        mre_mm: Mean radial error in mm on the images that all trainings are measured on.
    """

    images: int
    start: str
    mre_mm: float


def few_shot_curve(
    results: Sequence[FewShotResult],
    *,
    own: FewShotResult | None = None,
    between_readers_mm: float | None = None,
) -> "matplotlib.figure.Figure":
    """Draw one curve per start over the number of images, on a logarithmic axis labelled with these numbers.

    A curve connects the means. Several trainings (seeds) of one number get bars of one standard deviation (of the
    sample, n - 1). Single trainings are faint dots.

    Args:
        results: Result of each training, in any order.
        own: Result that is circled as "this run".
        between_readers_mm: Mean distance in mm between two readers, drawn as a line.
    """
    figure, axes = chart(xlabel="annotated training images", ylabel="MRE (mm)")
    starts = list(dict.fromkeys(one.start for one in results))
    for start, colour, marker in zip(starts, itertools.cycle(SERIES), itertools.cycle(_MARKERS), strict=False):
        _draw_start(axes, [one for one in results if one.start == start], colour, marker)
    if own is not None:
        place = [own.images], [own.mre_mm]
        axes.scatter(*place, s=90, facecolors="none", edgecolors="black", linewidths=1.2, zorder=5, label="this run")
    if between_readers_mm is not None:
        axes.axhline(between_readers_mm, color=NEUTRAL, linewidth=1.0, linestyle="--", label="between readers")
    _name_numbers(axes, sorted({one.images for one in results}))
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def _draw_start(axes: "matplotlib.axes.Axes", results: Sequence[FewShotResult], colour: str, marker: str) -> None:
    """The trainings of one start as dots, their means and standard deviations as a curve with bars."""
    numbers = sorted({one.images for one in results})
    errors = [[one.mre_mm for one in results if one.images == number] for number in numbers]
    means = [statistics.mean(some) for some in errors]
    axes.scatter([one.images for one in results], [one.mre_mm for one in results], s=14, c=colour, alpha=0.3, lw=0)
    axes.plot(numbers, means, color=colour, marker=marker, markersize=4, linewidth=1.4, label=results[0].start)
    several = [place for place, some in enumerate(errors) if len(some) > 1]
    axes.errorbar(
        [numbers[place] for place in several],
        [means[place] for place in several],
        yerr=[statistics.stdev(errors[place]) for place in several],
        fmt="none",
        ecolor=colour,
        elinewidth=1.0,
        capsize=3,
    )


def _name_numbers(axes: "matplotlib.axes.Axes", numbers: Sequence[int]) -> None:
    """A logarithmic axis with these numbers as its only ticks; upright where two of them are close."""
    axes.set_xscale("log")
    crowded = any(after / before < (numbers[-1] / numbers[0]) ** 0.05 for before, after in itertools.pairwise(numbers))
    axes.set_xticks(numbers, labels=[str(number) for number in numbers], rotation=90 if crowded else 0)
    axes.set_xticks([], minor=True)
