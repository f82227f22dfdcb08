"""Refinement by grey values: correlations against numpy, and landmarks of bodies whose every true place is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.local_correlation import WIDTH, Crops, correlate, crops_at
from medpixcl.matching.pose import shrunk
from tests.matching import test_pose as posed

DIMS = pytest.mark.parametrize("dims", [2, 3])
TINY = 1e-4
"""Factor of the coordinates that an image holds beside its grey values, so that they do not count as such."""
FINE = 0.5
"""Size of the templates' voxels in mm; the landmarks are first searched in voxels of 1 mm."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def gaussian(dims: int, reach: int) -> np.ndarray:
    steps = np.indices([2 * reach + 1] * dims) - reach
    return np.exp(-np.square(steps).sum(axis=0) / (2 * WIDTH**2))


@DIMS
class TestCorrelate:
    def test_is_numpys_weighted_correlation(self, dims: int) -> None:
        """At every step, with the voxels that both images show, against ``numpy.cov`` with weights."""
        side, window = [5] * dims, [8] * dims
        patches = Crops(draw(2, 1, *side), (draw(2, 1, *side, seed=1) > 0.2).float())
        windows = Crops(draw(2, 1, *window, seed=2), (draw(2, 1, *window, seed=3) > 0.2).float())
        found, weights = correlate(patches, windows), gaussian(dims, 2)
        assert found.shape == (2, *[4] * dims)
        for row, *step in np.ndindex(*found.shape):
            part = (row, 0, *[slice(first, first + 5) for first in step])
            both = (weights * patches.inside[row, 0].numpy() * windows.inside[part].numpy()).ravel()
            values = np.stack([patches.values[row, 0].numpy().ravel(), windows.values[part].numpy().ravel()])
            (own, product), (_, other) = np.cov(values, aweights=both, ddof=0)
            expected = max(0.0, product / np.sqrt(own * other))
            assert found[(row, *step)].item() == pytest.approx(expected, abs=1e-4)

    def test_brightness_and_contrast_change_nothing(self, dims: int) -> None:
        side, window = [5] * dims, [9] * dims
        patches, grey = Crops(draw(1, 1, *side), torch.ones(1, 1, *side)), draw(1, 1, *window, seed=2)
        there = torch.ones(1, 1, *window)
        found = correlate(patches, Crops(grey, there))
        torch.testing.assert_close(correlate(patches, Crops(3 * grey + 50, there)), found, atol=1e-3, rtol=0)

    def test_nothing_to_compare_is_zero(self, dims: int) -> None:
        side, window = [5] * dims, [9] * dims
        patches, there = Crops(draw(1, 1, *side), torch.ones(1, 1, *side)), torch.ones(1, 1, *window)
        assert correlate(patches, Crops(torch.full((1, 1, *window), 0.3), there)).abs().max() == 0
        assert correlate(patches, Crops(draw(1, 1, *window), 0 * there)).abs().max() == 0


@DIMS
def test_crops_against_scipy(dims: int) -> None:
    """Turned crops between the voxels; what lies outside is marked, also where a landmark is missing."""
    image, steps = draw(1, 1, *[12] * dims), posed.turned(dims, 30.0, 0.8).double()
    points = torch.full((2, dims), 5.3)
    points[1] = torch.nan
    crops = crops_at(image, image.shape[2:], points, steps, 5)
    lattice = np.stack(np.meshgrid(*[np.arange(-5, 6)] * dims, indexing="ij"), axis=-1)
    places = np.moveaxis(5.3 + lattice @ steps.numpy().T, -1, 0)
    there = ((places >= 0) & (places <= 11)).all(axis=0)
    expected = map_coordinates(image[0, 0].numpy(), places, order=1)
    assert np.array_equal(crops.inside[0, 0].numpy() > 0, there)
    assert 0 < there.mean() < 1
    np.testing.assert_allclose(crops.values[0, 0].numpy()[there], expected[there], atol=1e-4)
    assert crops.inside[1].sum() == 0
    assert crops.values.isfinite().all()


def body(dims: int, spacing: Tensor, shape: tuple[int, ...], matrix: Tensor, shift: Tensor) -> Tensor:
    """Image of smooth grey values and, tiny, of coordinates, see :func:`tests.matching.test_pose.body`."""
    image = posed.body(dims, spacing, shape, matrix, shift)
    place = image[0, 1:].movedim(0, -1) - posed.FAR
    waves = torch.randn(dims, 12, generator=torch.Generator().manual_seed(4))
    grey = torch.cos(place @ waves + torch.arange(12)).mean(dim=-1)
    there = image[0, 1] != 0
    return torch.cat([(grey * there)[None, None], TINY * image[:, 1:]], dim=1)


def embedding(dims: int) -> Callable[[Tensor], list[Tensor]]:
    plain = posed.embedding(dims)
    return lambda image: plain(torch.cat([image[:, :1], image[:, 1:] / TINY], dim=1))


def template(dims: int, spacing: float) -> Tensor:
    shape = tuple(round(size / spacing) for size in posed.SHAPE[dims])
    return body(dims, torch.full((dims,), spacing), shape, torch.eye(dims), torch.zeros(dims))


def turned_body(dims: int, fineness: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An image in another pose, and spacing, matrix and shift of the body in it."""
    matrix, shift, shape, spacing = posed.pose(dims, 100.0)
    spacing = spacing * fineness
    return body(dims, spacing, tuple(round(n / fineness) for n in shape), matrix, shift), spacing, matrix, shift


def landmarks(dims: int, count: int = 9) -> Tensor:
    """Positions in mm in the middle of the template."""
    return (0.25 + 0.5 * draw(count, dims, seed=7)) * (torch.tensor(posed.SHAPE[dims]) - 1)


def fitted(dims: int, marks: Tensor, spacing: float = FINE, **options: Any) -> LandmarkMatcher:
    matcher = LandmarkMatcher(**{"coarse_side": max(posed.SHAPE[dims])} | options)
    return matcher.fit(embedding(dims), posed.STRIDES, template(dims, spacing), marks / spacing, [spacing] * dims)


@DIMS
def test_a_known_pose_is_found_more_exactly(dims: int) -> None:
    """To a quarter of a fine voxel in the median, closer than by the coarse search alone."""
    marks = landmarks(dims)
    marks[3] = torch.nan
    errors = []
    for spacing, choice in ((1.0, None), (FINE, max(posed.SHAPE[dims]))):
        query, steps, matrix, shift = turned_body(dims, spacing)
        matcher = fitted(dims, marks, spacing, upright=True, coarse_side=choice)
        found = matcher.match(query, spacing=steps.tolist())
        assert [flag == "missing" for flag in found.flags] == [number == 3 for number in range(9)]
        assert found.voxels.isnan().any(dim=1).tolist() == [number == 3 for number in range(9)]
        away = torch.linalg.vector_norm(found.voxels * steps - (marks @ matrix.T + shift), dim=1)
        errors.append(away.nanmedian().item())
        known = found.covariance_mm2[torch.arange(9) != 3]
        assert (torch.linalg.eigvalsh(known.double()) > 0).all()
    assert errors[1] < 0.25 * FINE
    assert errors[1] < errors[0]


def test_several_templates() -> None:
    """The second template is brought into the pose of the first; landmarks that one of them lacks are found, too."""
    dims, marks = 2, landmarks(2)
    query, steps, matrix, shift = turned_body(dims, FINE)
    first, second = marks / FINE, (marks @ matrix.T + shift) / steps
    first[0], second[1] = torch.nan, torch.nan
    matcher = LandmarkMatcher(upright=True, coarse_side=max(posed.SHAPE[dims])).fit(
        embedding(dims),
        posed.STRIDES,
        [template(dims, FINE), query],
        [first, second],
        [[FINE] * dims, steps.tolist()],
    )
    found = matcher.match(template(dims, FINE), spacing=[FINE] * dims)
    assert torch.linalg.vector_norm(found.voxels * FINE - marks, dim=1).max() < FINE


@DIMS
@pytest.mark.parametrize("mode", ["argmax", "consistent"])
def test_landmarks_at_the_border(dims: int, mode: str) -> None:
    """A voxel from a border of the template, in an image that goes on there; no pose is searched."""
    marks = landmarks(dims)
    marks[0, 0] = 1.2 * FINE
    shift = torch.full((dims,), 4.3)
    shape = tuple(2 * (n + 9) for n in posed.SHAPE[dims])
    query = body(dims, torch.full((dims,), FINE), shape, torch.eye(dims), shift)
    found = fitted(dims, marks, mode=mode).match(query)
    away = torch.linalg.vector_norm(found.voxels * FINE - (marks + shift), dim=1)
    assert away[1:].max() < 0.5 * FINE
    assert away[0] < FINE


def test_a_lost_pose_is_not_refined() -> None:
    dims = 2
    matcher = fitted(dims, landmarks(dims), upright=True)
    other = template(dims, FINE)
    other[:, 1:] = TINY * (3 * posed.FAR + 9 * draw(*other[:, 1:].shape))
    found = matcher.match(other)
    matcher.local = None
    assert found.flags == ("unsure",) * 9
    torch.testing.assert_close(found.covariance_mm2, matcher.match(other).covariance_mm2)


@DIMS
def test_landmarks_at_one_place(dims: int) -> None:
    """They say nothing on how the others lie, and are found by the grey values alone."""
    marks = landmarks(dims, 1).repeat(3, 1)
    query = template(dims, FINE)
    found = fitted(dims, marks).match(query, spacing=[FINE] * dims)
    torch.testing.assert_close(found.voxels * FINE, marks, atol=0.25, rtol=0)


@DIMS
def test_nothing_is_sure_in_an_image_of_nan(dims: int) -> None:
    matcher, query = fitted(dims, landmarks(dims)), torch.full_like(template(dims, FINE), torch.nan)
    assert set(matcher.match(query, spacing=[FINE] * dims).flags) == {"unsure"}


def test_level_maps_are_refused() -> None:
    matcher = fitted(2, landmarks(2))
    with pytest.raises(ValueError, match="give the image itself"):
        matcher.match(embedding(2)(template(2, FINE)))


def test_too_few_voxels_are_refused() -> None:
    with pytest.raises(ValueError, match="coarse_side is 7; expected a whole number from 8 up"):
        LandmarkMatcher(coarse_side=7)


@DIMS
@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_a_shrunk_image_lies_where_it_lay(dims: int, factor: float) -> None:
    """A ramp keeps its values away from the border, where the blur sees what goes on beyond it."""
    ramp = torch.arange(24.0).view(-1, *[1] * (dims - 1)).expand([24] * dims)[None, None]
    small = shrunk(ramp, factor)
    assert small.shape[2:] == (int(24 / factor),) * dims
    centres = (torch.arange(small.shape[2]) + 0.5) * factor - 0.5
    line = small.movedim(2, -1).flatten(0, -2)[small[0, 0, 0].numel() // 2]
    torch.testing.assert_close(line[3:-3], centres[3:-3], atol=1e-3, rtol=0)
