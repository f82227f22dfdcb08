"""Two views of one image: independent of each other, reproducible, and the image itself untouched."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandFlipd, RandScaleIntensityd, RandShiftIntensityd

from medpixcl.transforms import RandTwoViewsd


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
