"""Curves over informativeness: what is drawn where."""

import numpy as np
import torch

from medpixcl.reports.figures import figure_to_array
from medpixcl.reports.similarity import loss_over_informativeness, similarity_over_informativeness

BITS = torch.tensor([0.5, 1.5, 2.5, 3.5])
COUNTS = torch.tensor([10.0, 30.0, 40.0, 20.0])


def test_similarity_curves() -> None:
    curves = {"product": torch.tensor([0.9, 0.8, 0.7, 0.95]), "mean": torch.tensor([0.95, 0.9, 0.85, 0.97])}
    figure = similarity_over_informativeness(BITS, curves, COUNTS, cuts=(1.0, 3.25))
    axes, bars = figure.axes
    for line, (name, values) in zip(axes.lines, curves.items(), strict=False):
        assert line.get_label() == name
        np.testing.assert_allclose(line.get_xydata(), np.stack([BITS, values], axis=1))
    assert [line.get_xdata()[0] for line in axes.lines[2:]] == [1.0, 3.25]
    assert [text.get_text() for text in axes.texts] == ["1.00", "3.25"]
    assert [bar.get_height() for bar in bars.patches] == COUNTS.tolist()
    assert figure_to_array(figure).std() > 0


def test_mean_loss_is_that_of_the_pairs() -> None:
    losses = np.array([1.0, 2.0, 4.0, 1.0])
    axes = loss_over_informativeness(BITS, losses, COUNTS).axes[0]
    (mean,) = [line for line in axes.lines if line.get_label() == "mean"]
    assert mean.get_ydata()[0] == (10 * 1 + 30 * 2 + 40 * 4 + 20 * 1) / 100


def test_nothing_to_draw() -> None:
    empty = torch.zeros(0)
    assert len(loss_over_informativeness(empty, empty, empty).axes) == 1
    assert len(similarity_over_informativeness(empty, {}, empty).axes) == 1
