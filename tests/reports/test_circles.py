"""Circles of error radii: round in mm, whatever the shape of the pixels."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.markers import draw_circles


def test_a_circle_in_mm_is_an_ellipse_in_pixels() -> None:
    """Pixels 0.5 mm high and 2 mm wide: a radius of 3 mm spans 12 rows and 3 columns."""
    axes = Figure().add_subplot()
    points = np.array([[4.0, 9.0], [np.nan, np.nan], [1.0, 1.0]])
    draw_circles(axes, points, np.array([3.0, 1.0, np.nan]), (0.5, 2.0))
    (circle,) = [artist for artist in axes.get_children() if isinstance(artist, Ellipse)]
    assert circle.center == (4.0, 9.0)
    assert (circle.height, circle.width) == (12.0, 3.0)


def test_an_overlay_has_a_circle_for_every_known_radius() -> None:
    for shape in ((20, 24), (12, 14, 16)):
        points = torch.full((3, len(shape)), 5.0)
        radii = torch.tensor([1.0, torch.nan, 2.0], dtype=torch.float64)
        figure = landmark_overlay(torch.rand(shape), points, radii_mm=radii, names=["a", "b", "c"])
        counts = [sum(isinstance(artist, Ellipse) for artist in axes.get_children()) for axes in figure.axes]
        assert counts == [2] * (1 if len(shape) == 2 else 3)
