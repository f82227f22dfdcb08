"""Shape of landmarks: right ones of new images fit, wrong, mirrored and wrongly sized ones do not."""

import json
import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from medpixcl.matching import ShapeStatistics
from medpixcl.matching.shape_statistics import misfit_warning

DIMS = pytest.mark.parametrize("dims", [2, 3])
COUNT, SIZE_MM = 15, 40.0
NAMES = [str(number) for number in range(COUNT)]


def shapes(number: int, dims: int, seed: int) -> torch.Tensor:
    """Point sets (N, K, D) that bend smoothly, in any pose, of sizes that vary by 5 %."""
    mean = SIZE_MM * torch.randn(COUNT, dims, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bent = mean + 2.0 * (mean / SIZE_MM) @ draw(number, dims, dims) + draw(number, COUNT, dims)
    angles = 2 * math.pi * torch.rand(number, 3, generator=generator, dtype=torch.float64)
    turns = torch.from_numpy(Rotation.from_euler("zyx", angles * torch.tensor([1, dims - 2, dims - 2])).as_matrix())
    sizes = (0.05 * draw(number, 1, 1)).exp()
    return sizes * bent @ turns[:, :dims, :dims].mT + 100 * draw(number, 1, dims)


@pytest.fixture(params=[2, 3])
def known(request: pytest.FixtureRequest) -> tuple[ShapeStatistics, torch.Tensor]:
    """Statistics of 40 images as they are read back, and 12 others."""
    made = ShapeStatistics.of(shapes(40, request.param, 0), NAMES)
    assert made is not None
    return ShapeStatistics.from_data(json.loads(json.dumps(made.to_data()))), shapes(12, request.param, 1)


def test_others_of_the_same_kind_fit(known: tuple[ShapeStatistics, torch.Tensor]) -> None:
    shape, others = known
    judged = [shape.judge(one) for one in others]
    assert torch.stack([one.fits for one in judged]).double().mean() > 0.99
    assert [one.size for one in judged] == pytest.approx([1.0] * len(others), rel=0.25)


def test_wrong_landmarks_are_told_from_the_others(known: tuple[ShapeStatistics, torch.Tensor]) -> None:
    """Four of fifteen lie 50 mm off; a missing one is not judged."""
    shape, others = known
    for one in others:
        wrong = one.clone()
        wrong[:4, 0] += 50 * torch.tensor([1, -1, 1, -1])
        wrong[9] = torch.nan
        judged = shape.judge(wrong)
        assert not judged.fits[:4].any()
        assert judged.fits[torch.tensor([4, 5, 6, 7, 8, 10, 11, 12, 13, 14])].all()
        assert judged.deviations.isnan().tolist() == [number == 9 for number in range(COUNT)]


@pytest.mark.parametrize("wrong", ["mirrored", "double", "half", "scattered"])
def test_a_wrong_image_has_no_landmark_to_trust(known: tuple[ShapeStatistics, torch.Tensor], wrong: str) -> None:
    shape, others = known
    flip = torch.ones(others.shape[2])
    flip[0] = -1
    generator = torch.Generator().manual_seed(3)
    changed = {
        "mirrored": others * flip,
        "double": 2 * others,
        "half": others / 2,
        "scattered": SIZE_MM * torch.randn(others.shape, generator=generator, dtype=torch.float64),
    }[wrong]
    assert not torch.stack([shape.judge(one).fits for one in changed]).any()


@DIMS
def test_one_image_is_a_shape_and_two_landmarks_are_none(dims: int) -> None:
    one, others = shapes(1, dims, 0), shapes(20, dims, 1)
    shape = ShapeStatistics.of(one, NAMES)
    assert shape is not None
    assert torch.stack([shape.judge(other).fits for other in others]).double().mean() > 0.95
    assert not torch.stack([shape.judge(2 * other).fits for other in others]).any()
    assert ShapeStatistics.of(one[:, :2], NAMES[:2]) is None
    assert ShapeStatistics.of(torch.where(torch.arange(COUNT)[:, None] == 3, torch.nan, one), NAMES) is None
    assert shape.judge(torch.full((COUNT, dims), torch.nan)).deviations.isnan().all()


def test_landmarks_at_one_place(known: tuple[ShapeStatistics, torch.Tensor]) -> None:
    """In a blank image all may be found in one pixel: none fits, and what is missing or endless is not judged."""
    shape, others = known
    one_place = torch.full_like(others[0], 7.0)
    one_place[2], one_place[3] = torch.nan, torch.inf
    judged = shape.judge(one_place)
    assert not judged.fits.any()
    assert judged.deviations.isnan().tolist() == [number in (2, 3) for number in range(COUNT)]
    line = torch.arange(COUNT)[:, None] * torch.ones(others.shape[2])
    assert not shape.judge(line).fits.any()


def test_no_shape(known: tuple[ShapeStatistics, torch.Tensor]) -> None:
    data = known[0].to_data()
    for fault in ({"mean_mm": "far"}, {"names": ["a"]}, {"modes_mm": [[1.0]]}, {"size_sd": None}):
        with pytest.raises(ValueError, match="the shape of the landmarks cannot be read"):
            ShapeStatistics.from_data(data | fault)


def test_the_warning_counts_images() -> None:
    assert misfit_warning([False, False]) == ""
    assert misfit_warning([True, False]).startswith("most landmarks of 1 of 2 images")
