"""The maps beside an image are those of the functions on it."""

import pytest
import torch

from medpixcl.informativeness import classify_informativeness, local_entropy
from medpixcl.transforms import LocalEntropyd
from tests.geometry import random_image

SHAPES = pytest.mark.parametrize("shape", [(20, 24), (10, 12, 8)], ids=["2d", "3d"])
SPACING = (0.5, 0.8, 1.4)  # of random_image


@SHAPES
@pytest.mark.parametrize("footprint", ["ball", "box"])
def test_entropy_and_classes(shape, footprint):
    image = random_image(shape, smooth=False)
    transform = LocalEntropyd("image", radius_mm=2.5, footprint=footprint, bins=16)
    item = transform({"image": image})
    expected = local_entropy(
        image.as_tensor()[None], radius=2.5, footprint=footprint, spacing=SPACING[: len(shape)], bins=16
    )
    torch.testing.assert_close(item["entropy_image"].as_tensor()[None], expected)
    classes = classify_informativeness(expected, cuts=None, quantiles=(1 / 3, 2 / 3))
    assert torch.equal(item["class_image"].as_tensor()[None], classes)
    assert classes.unique().tolist() == [0, 1, 2]
    for name in ("entropy_image", "class_image"):
        assert torch.equal(item[name].affine, image.affine)
    assert item["image"] is image


@SHAPES
def test_absolute_cuts(shape):
    image = random_image(shape, smooth=False)
    cuts = (3.0, 3.5)
    transform = LocalEntropyd("image", radius_mm=2.5, cuts=cuts)
    item = transform({"image": image})
    entropy = item["entropy_image"].as_tensor()
    assert torch.equal(item["class_image"].as_tensor(), (entropy >= 3.0).long() + (entropy >= 3.5).long())


def test_window_follows_the_spacing():
    """A pixel twice as large: half the radius in pixels, the same in mm."""
    image = random_image((20, 24), smooth=False)
    coarse = image.clone()
    coarse.affine = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0])).double() @ image.affine
    maps = [
        LocalEntropyd("image", radius_mm=r)({"image": i})["entropy_image"] for i, r in ((image, 2.0), (coarse, 4.0))
    ]
    torch.testing.assert_close(maps[0].as_tensor(), maps[1].as_tensor())
