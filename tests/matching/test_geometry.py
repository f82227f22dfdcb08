"""Similarity fits against known transforms and scipy; the shape prior against Gaussian conditioning."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medpixcl.landmarks.geometry import (
    consensus_similarity,
    fit_similarity,
    robust_similarity,
    robust_weights,
    spread,
    transform,
)
from medpixcl.matching.shape import ShapePrior
from tests.matching.fields import turned


@pytest.mark.parametrize("dims", [2, 3])
class TestFitSimilarity:
    def test_recovers_a_known_transform(self, dims: int, generator: torch.Generator) -> None:
        points = 10 * torch.randn(7, dims, generator=generator, dtype=torch.float64)
        matrix, shift = turned(dims, 25, 1.3).double(), torch.arange(1.0, dims + 1, dtype=torch.float64)
        found, offset = fit_similarity(points, transform(points, matrix, shift), torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(found, matrix, rtol=0, atol=1e-4)
        torch.testing.assert_close(offset, shift, rtol=0, atol=1e-3)

    def test_weight_zero_leaves_a_point_out(self, dims: int, generator: torch.Generator) -> None:
        points = 10 * torch.randn(6, dims, generator=generator)
        target = 2 * points
        target[0] += 100
        weights = torch.ones(6)
        weights[0] = 0
        found, _ = fit_similarity(points, target, weights)
        torch.testing.assert_close(found, 2 * torch.eye(dims), rtol=0, atol=1e-4)

    def test_a_mirrored_target_is_not_reached_by_mirroring(self, dims: int, generator: torch.Generator) -> None:
        points = 10 * torch.randn(6, dims, generator=generator)
        found, _ = fit_similarity(points, points * torch.tensor([-1.0] + [1.0] * (dims - 1)), torch.ones(6))
        assert torch.linalg.det(found) > 0

    def test_one_point_gives_a_shift(self, dims: int, generator: torch.Generator) -> None:
        matrix, shift = fit_similarity(torch.zeros(1, dims), torch.full((1, dims), 3.0), torch.ones(1))
        torch.testing.assert_close(matrix, torch.eye(dims))
        torch.testing.assert_close(shift, torch.full((dims,), 3.0))


def test_rotation_equals_scipy(generator: torch.Generator) -> None:
    source = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(8, generator=generator, dtype=torch.float64)
    matrix, _ = fit_similarity(source, target, weights)
    share = (weights / weights.sum()).numpy()[:, None]
    a, b = (points.numpy() - (share * points.numpy()).sum(axis=0) for points in (source, target))
    expected, _ = Rotation.align_vectors(b, a, weights=weights.numpy())
    rotation = matrix / torch.linalg.det(matrix).abs() ** (1 / 3)
    # The pull towards no rotation is all that may differ.
    assert np.abs(rotation.numpy() - expected.as_matrix()).max() < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_consensus_chooses_among_candidates(dims: int, generator: torch.Generator) -> None:
    """The true place is the best candidate of half of the landmarks only, and missing for two of them."""
    points = 40 * torch.rand(12, dims, generator=generator)
    truth = transform(points, turned(dims, -15, 1.2), torch.full((dims,), 5.0))
    candidates = 60 * torch.rand(12, 4, dims, generator=generator)
    candidates[torch.arange(10), torch.arange(10) % 2] = truth[:10]
    costs = torch.tensor([0.0, 0.3, 0.6, 0.9]).repeat(12, 1)
    matrix, shift = consensus_similarity(points, candidates, costs, sigma=3.0)
    assert (transform(points, matrix, shift) - truth).norm(dim=1).max() < 0.5


@pytest.mark.parametrize("dims", [2, 3])
def test_leave_one_out_equals_conditioning_on_the_others(dims: int, generator: torch.Generator) -> None:
    expected = 30 * torch.rand(6, dims, generator=generator, dtype=torch.float64)
    found = expected + torch.randn(6, dims, generator=generator, dtype=torch.float64)
    weights = 0.2 + 0.8 * torch.rand(6, generator=generator, dtype=torch.float64)
    prior = ShapePrior(expected, 1.0)
    predicted, deviation = prior.leave_one_out(found, weights)
    covariance, noise = prior.covariance.numpy(), (prior.noise / weights).numpy()
    for one in range(6):
        others = [k for k in range(6) if k != one]
        gain = covariance[one, others] @ np.linalg.inv(covariance[np.ix_(others, others)] + np.diag(noise[others]))
        mean = expected[one].numpy() + gain @ (found - expected).numpy()[others]
        variance = covariance[one, one] - gain @ covariance[others, one] + prior.noise.item()
        np.testing.assert_allclose(predicted[one].numpy(), mean, rtol=1e-9)
        assert deviation[one].item() ** 2 == pytest.approx(variance, rel=1e-9)


def test_shape_prior_knows_no_unit(generator: torch.Generator) -> None:
    """The same landmarks in a unit a thousand times smaller: predictions a thousand times larger, no other change."""
    expected = 30 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    found = expected + torch.randn(6, 2, generator=generator, dtype=torch.float64)
    weights = torch.ones(6, dtype=torch.float64)
    predicted, deviation = ShapePrior(expected, 1.0).leave_one_out(found, weights)
    scaled, wide = ShapePrior(1000 * expected, 1000.0).leave_one_out(1000 * found, weights)
    torch.testing.assert_close(scaled, 1000 * predicted)
    torch.testing.assert_close(wide, 1000 * deviation)


def test_far_residuals_count_little() -> None:
    weights = robust_weights(torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 10.0]]), torch.ones(3))
    # (2 + D) / (2 + squared residual in deviations), 1 at most
    assert weights.tolist() == pytest.approx([1.0, 1.0, 4 / 102])


def test_spread_of_a_square() -> None:
    assert spread(torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])).item() == pytest.approx(2**0.5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_third_of_the_landmarks_far_off(dims: int, generator: torch.Generator) -> None:
    """The others decide: to a hundredth of the spread, where a plain fit is thrown by a tenth."""
    shape = 10 * torch.randn(15, dims, generator=generator, dtype=torch.float64)
    matrix, shift = turned(dims, 140, 1.1).double(), torch.arange(1.0, dims + 1, dtype=torch.float64)
    truth = transform(shape, matrix, shift)
    found = truth + 0.02 * torch.randn(15, dims, generator=generator, dtype=torch.float64)
    found[:5] += 20 * torch.randn(5, dims, generator=generator, dtype=torch.float64)
    away = (transform(shape, *robust_similarity(shape, found)) - truth).norm(dim=1)
    plain = (transform(shape, *fit_similarity(shape, found, torch.ones_like(found[:, 0]))) - truth).norm(dim=1)
    assert away.max() < 0.01 * spread(shape)
    assert plain.max() > 0.1 * spread(shape)
