"""Two views of one image: independent of each other, reproducible, and the image itself untouched."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandFlipd, RandScaleIntensityd, RandShiftIntensityd

from medpixcl.transforms import RandContrastViewsd, RandTwoViewsd


@pytest.mark.parametrize("shape", [(1, 6, 5), (2, 4, 5, 6)])
def test_views(shape: tuple[int, ...]) -> None:
    image = MetaTensor(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    before = image.clone()
    views = RandTwoViewsd("image", [RandShiftIntensityd("image", offsets=1.0, prob=1.0)])
    first, again, other = (views.set_random_state(seed)({"image": image}) for seed in (0, 0, 1))
    assert torch.equal(first["image"], before)
    shifts = [float((item[f"image_{name}"] - before).mean()) for item in (first, other) for name in ("first", "second")]
    assert len({round(shift, 4) for shift in shifts}) == 4
    assert all(torch.equal(first[key], again[key]) for key in ("image_first", "image_second"))


def test_changes_follow_in_their_order() -> None:
    """Twice the values, then one more: not twice the sum."""
    steps = [
        RandScaleIntensityd("image", factors=(1.0, 1.0), prob=1.0),
        RandShiftIntensityd("image", offsets=(1.0, 1.0), prob=1.0),
        RandFlipd("image", prob=1.0, spatial_axis=0),
    ]
    image = torch.arange(4.0).view(1, 4)
    item = RandTwoViewsd("image", steps).set_random_state(0)({"image": image})
    assert item["image_first"].tolist() == item["image_second"].tolist() == [[7.0, 5.0, 3.0, 1.0]]


@pytest.mark.parametrize(("shape", "view"), [((1, 40, 30), (16, 16)), ((1, 20, 24, 16), (8, 8, 8))])
def test_contrast_views(shape: tuple[int, ...], view: tuple[int, ...]) -> None:
    image = MetaTensor(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    item = RandContrastViewsd("image", view).set_random_state(3)({"image": image})
    first, second = item["image_first"], item["image_second"]
    assert first.shape == second.shape == (1, *view)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("shape", "axis"), [((16, 16), 2), ((8, 8, 8), 1)])
def test_contrast_views_are_mirrored_left_to_right(shape: tuple[int, ...], axis: int) -> None:
    """Of a ramp over all axes, the mirrored axis alone falls; intensities change, their order does not."""
    grids = torch.meshgrid(*(torch.linspace(0.1, 0.3, size) for size in shape), indexing="ij")
    image = MetaTensor(torch.stack(list(grids)).sum(0, keepdim=True))
    item = RandContrastViewsd("image", shape, flip_share=1.0).set_random_state(0)({"image": image})
    for name in ("first", "second"):
        rises = [float(item[f"image_{name}"].as_tensor().diff(dim=dim).mean()) > 0 for dim in range(1, image.ndim)]
        assert rises == [dim != axis for dim in range(1, image.ndim)]
