"""Intensities and sizes for the networks, against NumPy and plain arithmetic."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medpixcl.transforms import LongestSided, UnitIntensityd


@pytest.mark.parametrize("shape", [(1, 40, 30), (2, 12, 10, 8)])
def test_percentiles_of_each_image(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(500, 100, shape).astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.clip((values - low) / (high - low), 0, 1)
    affine = torch.diag(torch.tensor([0.5, 0.7, 1.0, 1.0]))
    data = {"image": MetaTensor(values, affine=affine), "detail": MetaTensor(values * 3 + 7)}
    found = UnitIntensityd(["image", "detail"])(data)
    for key in ("image", "detail"):
        np.testing.assert_allclose(found[key].numpy(), expected, atol=1e-5)
    assert torch.equal(found["image"].affine, affine.double())
    assert np.array_equal(data["image"].numpy(), values)


def test_window_is_the_same_for_every_image() -> None:
    values = torch.tensor([[-2000.0, -1000.0, -200.0, 600.0, 3000.0]])
    found = UnitIntensityd("image", window=[-1000.0, 600.0])({"image": values})["image"]
    torch.testing.assert_close(torch.as_tensor(found), torch.tensor([[0.0, 0.0, 0.5, 1.0, 1.0]]))


@pytest.mark.parametrize("window", [[1.0, 1.0], [2.0, 1.0], [0.0], [0.0, float("nan")], [0, 1, 2]])
def test_window_that_is_none(window: list[float]) -> None:
    with pytest.raises(ValueError, match="expected two ascending numbers"):
        UnitIntensityd("image", window=window)


@pytest.mark.parametrize(("shape", "size"), [((40, 30), (20, 15)), ((10, 20), (10, 20)), ((12, 8, 16), (15, 10, 20))])
def test_longest_side(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    """All sides change by one factor; a linear ramp stays one in the middle, whatever the size."""
    ramp = torch.arange(shape[0], dtype=torch.float32).view(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)
    found = LongestSided("image", 20)({"image": MetaTensor(ramp.clone())})["image"]
    assert found.shape == (1, *size)
    middle = tuple(slice(length // 3, -length // 3) for length in size)
    steps = found.as_tensor().diff(dim=1)[:, *middle]
    torch.testing.assert_close(steps, torch.full_like(steps, shape[0] / size[0]), atol=1e-3, rtol=0)


def test_no_side_leaves_the_image() -> None:
    image = MetaTensor(torch.rand(1, 5, 9))
    assert LongestSided("image", None)({"image": image})["image"] is image
