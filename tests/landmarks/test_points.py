"""The named points of one image."""

import pytest
import torch

from medpixcl.landmarks.points import LandmarkSet


@pytest.mark.parametrize("dims", [2, 3])
def test_positions_become_float64_and_nan_rows_are_missing(dims: int) -> None:
    voxels = torch.full((2, dims), 1.5)
    voxels[1, 0] = torch.nan
    points = LandmarkSet(("a", "b"), voxels)
    assert points.voxels.dtype == torch.float64
    assert points.dims == dims
    assert points.missing.tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"names": ("a", "a")}, "a landmark name is used twice"),
        ({"names": ("a",)}, "2 landmarks come with 1 names"),
        ({"scores": torch.zeros(3)}, "2 landmarks come with 3 scores"),
        ({"flags": ("",)}, "2 landmarks come with 1 flags"),
        ({"voxels": torch.zeros(2, 4)}, "landmarks have 4 coordinates; expected 2 or 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LandmarkSet(**{"names": ("a", "b"), "voxels": torch.zeros(2, 2)} | arguments)
