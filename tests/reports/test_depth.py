"""Pictures of the exogenous filter: what is drawn where."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from medpixcl.reports.depth import ANCHOR, KEPT, REMOVED, depth_views
from medpixcl.reports.figures import figure_to_array

SHAPES = {2: (24, 16), 3: (24, 16, 12)}
CELLS = {2: (3, 4), 3: (3, 4, 3)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def views_and_depths(dims: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(SHAPES[dims], generator=generator) for _ in range(2)]
    depths = []
    for offset in (0.0, 50.0):
        values = torch.arange(SHAPES[dims][0]).float().view(-1, *[1] * (dims - 1)).expand(SHAPES[dims]) + offset
        valid = torch.ones(SHAPES[dims])
        valid[:6] = 0
        depths.append(torch.stack([values, valid]))
    return views, depths


def tinted(axes, colour: str, number: int) -> list[tuple[int, int]]:
    """Cells of an overlay as (row, column) of the picture."""
    picture = axes.images[number].get_array()
    assert np.allclose(picture[picture[..., 3] > 0][:, :3], to_rgb(colour))
    return [tuple(place) for place in np.argwhere(picture[..., 3] > 0).tolist()]


@DIMS
def test_cells_and_depths(dims: int) -> None:
    views, depths = views_and_depths(dims)
    positives, removed = torch.zeros(CELLS[dims], dtype=torch.bool), torch.zeros(CELLS[dims], dtype=torch.bool)
    cell = (1, 2, 0)[:dims]
    layer = (2,) if dims == 3 else ()
    positives[(0, 1, *layer)] = removed[(2, 3, *layer)] = True
    figure = depth_views(views, depths, positives=positives, removed=removed, cell=cell)
    query, anchor, low, high = figure.axes[:4]
    # A volume runs as radiologists show it: the first axis to the left, the second one up.
    place = (lambda i, j: (i, j)) if dims == 2 else (lambda i, j: (3 - j, 2 - i))
    assert tinted(query, ANCHOR, 1) == [place(1, 2)]
    assert tinted(anchor, KEPT, 1) == [place(0, 1)]
    assert tinted(anchor, REMOVED, 2) == [place(2, 3)]
    assert anchor.get_title() == "anchor view: 1 positives, 1 removed"
    for axes, depth in ((low, depths[0]), (high, depths[1])):
        drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
        expected = torch.where(depth[1] > 0, depth[0], torch.nan).numpy()
        expected = expected if dims == 2 else expected[..., 0].T[::-1, ::-1]  # the same in every slice
        np.testing.assert_array_equal(drawn, expected)
        assert axes.get_title() == "75 % known"
    assert low.images[0].get_clim() == high.images[0].get_clim()
    assert figure_to_array(figure).std() > 0


def test_slices_are_those_of_the_cell_and_its_positives() -> None:
    views, depths = views_and_depths(3)
    positives = torch.zeros(CELLS[3], dtype=torch.bool)
    positives[0, 0, 0] = positives[1, 1, 2] = positives[2, 1, 2] = True
    figure = depth_views(views, depths, positives=positives, cell=(0, 0, 1))
    query, anchor = figure.axes[:2]
    layers = (query, views[0], 6), (anchor, views[1], 10)  # the middle of cell 1 and of cell 2, four voxels each
    for axes, view, layer in layers:
        expected = view[..., layer].numpy().T[::-1, ::-1]
        assert np.corrcoef(axes.images[0].get_array().ravel(), expected.ravel())[0, 1] > 0.999
    assert len(tinted(anchor, KEPT, 1)) == 2


@DIMS
def test_without_cells_and_with_nothing_known(dims: int) -> None:
    views, depths = views_and_depths(dims)
    nothing = [torch.zeros_like(depth) for depth in depths]
    figure = depth_views(views, nothing, spacing=(1.0, 2.0, 3.0)[:dims])
    assert [len(axes.images) for axes in figure.axes[:4]] == [1, 1, 1, 1]
    assert figure_to_array(figure).shape[0] == 3


def test_what_does_not_fit() -> None:
    views, depths = views_and_depths(2)
    with pytest.raises(ValueError, match="expected two views, and for each its values and validity"):
        depth_views(views, [depth[..., 1:] for depth in depths])
    with pytest.raises(ValueError, match="positives and cell go together"):
        depth_views(views, depths, positives=torch.zeros(3, 4, dtype=torch.bool))
