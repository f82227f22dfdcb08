"""Landmark rules on label maps made by hand."""

import numpy as np
import pytest
import torch

from medpixcl.data.label_landmarks import TipRule, find_tips

AFFINE = torch.tensor(
    [[-2.0, 0.0, 0.0, 100.0], [0.0, 2.0, 0.0, -40.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)
"""i runs to the patient's left, j to the front, k up."""


@pytest.fixture
def labels() -> np.ndarray:
    """A bell with an apex (1), its lower lobe (2), and a vertebra (3): body, process, the cord (4) between them."""
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[5:16, 5:16, 8:12] = 1
    labels[9:12, 9:12, 12:16] = 1
    labels[9, 10, 16] = 1
    labels[5:16, 5:16, 4:8] = 2
    labels[25:32, 14:22, 4:9] = 3
    labels[27:30, 4:9, 4:8] = 3
    labels[22:35, 9, 6] = 3
    labels[28, 11, 0:20] = 4
    labels[28, 25, 15] = 4
    return labels


def place(labels: np.ndarray, *rules: TipRule) -> list[list[float]]:
    return find_tips(labels, AFFINE, rules).tolist()


def test_the_apex_is_the_highest_voxel(labels: np.ndarray) -> None:
    assert place(labels, TipRule((1,), (0, 0, 1))) == [[100 - 2 * 9, -40 + 2 * 10, 7 + 3 * 16]]


def test_a_flat_top_has_its_landmark_in_the_middle(labels: np.ndarray) -> None:
    labels[9, 10, 16] = 0
    assert place(labels, TipRule((1,), (0, 0, 5))) == [[100 - 2 * 10, -40 + 2 * 10, 7 + 3 * 15]]


def test_lobes_make_one_lung(labels: np.ndarray) -> None:
    low, high = place(labels, TipRule((1, 2), (0, 0, -1)), TipRule((1, 2), (0, 0, 1)))
    assert low[2] == 7 + 3 * 4
    assert high[2] == 7 + 3 * 16


def test_right_is_right_and_a_slanted_direction_finds_the_corner(labels: np.ndarray) -> None:
    (right,) = place(labels, TipRule((2,), (1, 0, 0)))
    assert right[0] == pytest.approx(100 - 2 * 5.5)  # two columns of voxels lie within 2.5 mm
    (corner,) = place(labels, TipRule((2,), (-1, 0, -1)))
    columns = np.array([[15, 4], [14, 4], [15, 5]])  # those within 2.5 mm of the farthest along the diagonal
    reach = columns @ np.array([2.0, -3.0]) / 2**0.5
    assert reach.max() - reach.min() <= 2.5
    np.testing.assert_allclose(corner, [*(100 - 2 * columns[:, :1].mean(0)), -20, *(7 + 3 * columns[:, 1:].mean(0))])


def test_the_vertebral_body_lies_in_front_of_the_cord(labels: np.ndarray) -> None:
    whole, body = place(labels, TipRule((3,), (-1, 0, 0)), TipRule((3,), (-1, 0, 0), in_front_of=4))
    assert whole[0] == 100 - 2 * 33.5  # the transverse process
    assert body[0] == 100 - 2 * 30.5
    (behind,) = place(labels, TipRule((3,), (0, -1, 0)))
    assert behind[1] == pytest.approx(-40 + 2 * 4.5)  # the spinous process


def test_a_structure_that_is_not_there_is_named(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no voxel of label 9"):
        place(labels, TipRule((1,), (0, 0, 1)), TipRule((9,), (0, 0, 1)))
