"""The few-shot curve against means and deviations by hand, read from what was drawn."""

import math

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from medpixcl.reports.few_shot import FewShotResult, few_shot_curve
from medpixcl.reports.figures import figure_to_png

RESULTS = [
    FewShotResult(25, "scratch", 2.0),
    FewShotResult(5, "scratch", 3.0),
    FewShotResult(5, "imagenet", 1.5),
    FewShotResult(5, "scratch", 4.0),
    FewShotResult(150, "scratch", 1.0),
    FewShotResult(5, "scratch", 8.0),
    FewShotResult(25, "imagenet", 1.25),
]


def curves(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Label to its points; error bars have no label of their own."""
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines}


def dots(figure: Figure) -> list[PathCollection]:
    return [item for item in figure.axes[0].collections if isinstance(item, PathCollection)]


def bars(figure: Figure) -> list[np.ndarray]:
    """Ends of every vertical error bar."""
    drawn = [item for item in figure.axes[0].collections if isinstance(item, LineCollection)]
    return [segment for item in drawn for segment in item.get_segments()]


def test_means_by_hand() -> None:
    """3, 4 and 8 mm have a mean of 5 and squared deviations of 4, 1 and 9, so a sample variance of 7."""
    figure = few_shot_curve(RESULTS)
    assert curves(figure) == {"scratch": [(5, 5.0), (25, 2.0), (150, 1.0)], "imagenet": [(5, 1.5), (25, 1.25)]}
    (bar,) = bars(figure)  # one training alone has no deviation
    assert bar[:, 0].tolist() == [5, 5]
    assert sorted(bar[:, 1]) == pytest.approx([5 - math.sqrt(7), 5 + math.sqrt(7)])


def test_every_training_is_a_dot_of_its_curves_colour() -> None:
    figure = few_shot_curve(RESULTS)
    for start, some in zip(("scratch", "imagenet"), dots(figure), strict=True):
        wanted = [[one.images, one.mre_mm] for one in RESULTS if one.start == start]
        assert some.get_offsets().tolist() == wanted
        assert some.get_alpha() < 1


def test_axis_names_the_numbers() -> None:
    axes = few_shot_curve(RESULTS).axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "25", "150"]
    assert axes.get_xticks().tolist() == [5, 25, 150]
    assert axes.get_xticks(minor=True).size == 0


def test_this_run_and_the_readers() -> None:
    figure = few_shot_curve(RESULTS, own=RESULTS[0], between_readers_mm=2.35)
    ring = dots(figure)[-1]
    assert (ring.get_label(), ring.get_offsets().tolist(), len(ring.get_facecolors())) == ("this run", [[25, 2.0]], 0)
    assert [height for _, height in curves(figure)["between readers"]] == [2.35, 2.35]
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["scratch", "imagenet", "this run", "between readers"]


@pytest.mark.parametrize("numbers", [[5], [1, 2], [134, 135, 150]])
def test_any_numbers_and_names(numbers: list[int]) -> None:
    results = [FewShotResult(number, "$\\frac{", 1.0) for number in numbers]
    figure = few_shot_curve(results)
    assert figure_to_png(figure).startswith(b"\x89PNG")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [str(number) for number in numbers]
