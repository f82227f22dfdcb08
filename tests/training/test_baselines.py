"""Batches of the pretrainings that mix-up is compared with."""

import pytest
import torch
from monai.data import MetaTensor

from medpixcl.training.baselines import OpacityClassesPrepareBatch, ViewsPrepareBatch


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 2)])
def test_views_stand_side_by_side(shape):
    first, second = torch.rand(2, 3, 1, *shape)
    views, number = ViewsPrepareBatch()({"image_first": MetaTensor(first), "image_second": second}, "cpu")
    assert type(views) is torch.Tensor
    assert views.shape == (3, 2, 1, *shape)
    assert torch.equal(views[:, 0], first)
    assert torch.equal(views[:, 1], second)
    assert number.tolist() == [0, 1, 2]


def test_opacities_become_classes():
    """The nearest level: a mixture at the border of two boxes may lie between."""
    opacity = MetaTensor(torch.tensor([[[[0.0, 0.25, 0.5], [0.75, 1.0, 0.3]]]]))
    batch = {"image": torch.zeros(1, 1, 2, 3), "image_opacity_map": opacity}
    mixed, classes = OpacityClassesPrepareBatch([0, 0.25, 0.5, 0.75, 1])(batch, "cpu")
    assert mixed.shape == classes.shape
    assert classes.tolist() == [[[[0, 1, 2], [3, 4, 1]]]]
