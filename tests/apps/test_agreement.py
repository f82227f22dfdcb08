"""The mean of two finders, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from medpixcl.apps.agreement import mean_of_both
from medpixcl.apps.images import ImageList
from medpixcl.apps.output import Output
from medpixcl.apps.results import Landmarks, Results
from medpixcl.coordinates import image_affine
from medpixcl.landmarks.points import LandmarkSet

NAMES = ("a", "b", "c", "d")
NAN = float("nan")


def results(path: Path, voxels: list[list[float]], scores: list[float], flags: list[str]) -> Results:
    """Landmarks of one picture with pixels of 0.5 mm."""
    points = LandmarkSet(NAMES, torch.tensor(voxels, dtype=torch.float64), torch.tensor(scores), tuple(flags))
    one = Landmarks(
        image="a.png",
        points=points,
        affine=image_affine((0.5, 0.5)),
        shape=(40, 40),
        source=str(path),
        covariance_mm2=torch.eye(2, dtype=torch.float64).repeat(4, 1, 1),
    )
    return Results("test", NAMES, ImageList(path, 0.5), Compose([]), Output(), landmarks=[one])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_mean_and_doubt(picture: Path) -> None:
    """b differs by 4 rows, that is 2 mm: not above the limit; c by 6; d is lacking in one of them."""
    first = results(picture, [[10, 10], [20, 20], [5, 5], [30, 8]], [0.8, 0.6, 0.9, 0.4], ["unsure", "", "", ""])
    second = results(picture, [[12, 10], [24, 20], [5, 11], [NAN, NAN]], [0.4, 0.6, 0.9, NAN], ["", "", "", "missing"])
    first.reference = {"a.png": {"a": (5.0, 5.5), "b": (10.0, 11.0)}}  # x, y: columns and rows times 0.5 mm
    merged = mean_of_both(first, second)
    merged.measure()
    (one,) = merged.landmarks
    assert one.voxels.tolist() == [[11, 10], [22, 20], [5, 8], [30, 8]]
    assert one.scores.tolist() == pytest.approx([0.6, 0.6, 0.9, 0.4])
    assert one.flags == ("", "", "unsure", "unsure")
    # b: half the difference is 1 mm along y, whose square is added to the variance of 1.
    torch.testing.assert_close(one.covariance_mm2[1], torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
    assert merged.metrics is not None
    assert merged.metrics["mre_mm"] == pytest.approx(0.0, abs=1e-9)
    assert merged.facts["positions"].startswith("mean of test and test, which differ by 2.0 mm in the median")
    assert [one.metrics["mre_mm"] for one in merged.alone if one.metrics] == pytest.approx(
        [0.75, 0.75]
    )  # a: 0.5 mm, b: 1 mm
    assert first.landmarks[0].voxels.tolist()[0] == [10, 10], "the results stay as they were"
    assert merged.matched_flags == [("unsure", "", "", "")]
    assert merged.notes == []
    poor = mean_of_both(first, second, max_difference_mm=0.9)
    assert "differ by more than 0.9 mm at 75 % of the landmarks: one of the two does not fit" in poor.notes[0]


def test_both_doubt(picture: Path) -> None:
    """By name, whatever the order of the detector's landmarks."""
    first = results(picture, [[1, 1], [2, 2], [3, 3], [4, 4]], [0.5] * 4, ["unsure", "unsure", "", ""])
    other = results(picture, [[4, 4], [3, 3], [2, 2], [1, 1]], [0.5] * 4, ["", "", "", "unsure"])
    points = replace(other.landmarks[0].points, names=("d", "c", "b", "a"))
    second = replace(other, names=points.names, landmarks=[replace(other.landmarks[0], points=points)])
    (one,) = mean_of_both(first, second).landmarks
    assert one.flags == ("unsure", "", "", "")
    assert one.voxels.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
