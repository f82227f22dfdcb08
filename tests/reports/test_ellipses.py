"""Ellipses of regions: in the right place of every picture, whatever its pixels and the way it is looked at."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.stats import special_ortho_group

from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.markers import draw_ellipses
from medpixcl.reports.panels import panels


def region(dims: int, seed: int = 0) -> np.ndarray:
    turn = special_ortho_group.rvs(dims, random_state=np.random.default_rng(seed))
    return turn @ np.diag(np.array([36.0, 4.0, 9.0])[:dims]) @ turn.T


def ellipses(axes) -> list[Ellipse]:
    return [artist for artist in axes.get_children() if isinstance(artist, Ellipse)]


def test_an_upright_ellipse() -> None:
    """Pixels 0.5 mm high and 2 mm wide: 6 mm along the rows' axis are 12 rows, 3 mm across are 1.5 columns."""
    (panel,) = panels(torch.rand(20, 24), spacing=[0.5, 2.0])
    axes = Figure().add_subplot()
    points = np.array([[4.0, 9.0], [np.nan, 1.0], [1.0, 1.0]])
    regions = np.stack([np.diag([36.0, 9.0]), np.eye(2), np.full((2, 2), np.nan)])
    draw_ellipses(axes, points, panel.shadow(regions))
    (drawn,) = ellipses(axes)
    assert drawn.center == (4.0, 9.0)
    xy = drawn.get_patch_transform().transform(drawn.get_path().vertices) - [4.0, 9.0]
    assert np.abs(xy).max(axis=0) == pytest.approx([1.5, 12.0], rel=1e-3)


@pytest.mark.parametrize("orientation", [np.diag([0.5, 0.8, 1.2, 1.0]), np.diag([-0.5, 0.8, -1.2, 1.0])])
def test_outlines_hold_what_the_region_holds(orientation: np.ndarray) -> None:
    """Places on the border of an ellipsoid, drawn as points, fill its outline in every view and reach its edge."""
    centre, shape, spacing = np.array([8.0, 9.0, 7.0]), region(3), np.abs(np.diag(orientation)[:3])
    directions = np.random.default_rng(0).normal(size=(40_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    border = centre + directions @ np.linalg.cholesky(shape).T / spacing
    for panel in panels(torch.rand(20, 18, 16), affine=orientation):
        outline = panel.shadow(shape[None])[0]
        away = panel.place(border) - panel.place(centre[None])
        reach = np.einsum("nd,de,ne->n", away, np.linalg.inv(outline), away)
        assert 0.999 < reach.max() <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_a_tilted_ellipse_is_drawn_as_its_matrix_says(seed: int) -> None:
    (panel,) = panels(torch.rand(20, 24), spacing=[0.5, 2.0])
    outline = panel.shadow(region(2, seed)[None])
    axes = Figure().add_subplot()
    draw_ellipses(axes, np.array([[3.0, 5.0]]), outline)
    (drawn,) = ellipses(axes)
    turns = np.linspace(0, 2 * np.pi, 50)
    unit_circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    xy = drawn.get_patch_transform().transform(unit_circle) - [3.0, 5.0]
    np.testing.assert_allclose(np.einsum("nd,de,ne->n", xy, np.linalg.inv(outline[0]), xy), 1, rtol=1e-6)


def test_an_overlay_has_an_ellipse_for_every_known_region() -> None:
    for shape in ((20, 24), (12, 14, 16)):
        dims = len(shape)
        regions = torch.from_numpy(np.stack([region(dims), np.full((dims, dims), np.nan), region(dims, 1)]))
        figure = landmark_overlay(torch.rand(shape), torch.full((3, dims), 5.0), regions_mm2=regions)
        counts = [len(ellipses(axes)) for axes in figure.axes]
        assert counts == [2] * (1 if dims == 2 else 3)
