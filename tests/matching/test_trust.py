"""The shape learnt from many point sets, and what it makes of wrong landmarks."""

import numpy as np
import pytest
import torch

from medpixcl.matching import MatchResult
from medpixcl.matching.point_distribution import PointDistribution, smooth_covariance
from medpixcl.matching.trust import Relabelled, half_at, match_weights, relabel


def shapes(dims: int, number: int = 60, count: int = 9, seed: int = 0):
    """Template and images of one anatomy with two modes of variation, in other places and sizes, (N, K, D) mm."""
    state = np.random.default_rng(seed)
    template = state.uniform(-40, 40, (count, dims))
    modes = state.normal(0, 2, (2, count, dims))
    bent = template + np.einsum("nm,mkd->nkd", state.normal(size=(number, 2)), modes)
    moved = bent * state.uniform(0.9, 1.1, (number, 1, 1)) + state.normal(0, 10, (number, 1, dims))
    return torch.from_numpy(template), torch.from_numpy(moved)


def corrupted(true: torch.Tensor, share: float = 0.2, seed: int = 1):
    """A share of the landmarks 20 to 40 mm away, and which."""
    state = np.random.default_rng(seed)
    wrong = torch.from_numpy(state.uniform(size=true.shape[:2]) < share)
    way = torch.from_numpy(state.normal(size=true.shape))
    way = (
        way
        / torch.linalg.vector_norm(way, dim=2, keepdim=True)
        * torch.from_numpy(state.uniform(20, 40, (*true.shape[:2], 1)))
    )
    noise = torch.from_numpy(state.normal(0, 0.5, true.shape))
    return true + noise + torch.where(wrong[..., None], way, 0), wrong


@pytest.mark.parametrize("dims", [2, 3])
def test_conditional_mean_of_the_gaussian(dims):
    """Prediction and deviation equal those of the conditional distribution, computed by leaving each landmark out."""
    template, true = shapes(dims)
    model = PointDistribution(true, torch.ones(true.shape[:2]), template)
    weights = torch.rand(3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    aligned = model.mean + torch.randn(3, 9, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    predicted, deviation = model._leave_one_out(aligned, weights)
    for image, landmark in [(0, 0), (1, 4), (2, 8)]:
        rows = torch.tensor([k * dims + d for k in range(9) if k != landmark for d in range(dims)])
        own = torch.arange(landmark * dims, (landmark + 1) * dims)
        noise = (model.noise / weights[image]).repeat_interleave(dims)
        others = model.covariance[rows][:, rows] + torch.diag(noise[rows])
        gain = model.covariance[own][:, rows] @ torch.linalg.inv(others)
        away = (aligned[image] - model.mean).flatten()[rows]
        torch.testing.assert_close(predicted[image, landmark], model.mean[landmark] + gain @ away)
        left = model.covariance[own][:, own] - gain @ model.covariance[own][:, rows].T
        wanted = (left.diagonal().mean() + model.noise).sqrt()
        torch.testing.assert_close(deviation[image, landmark], wanted)


@pytest.mark.parametrize("dims", [2, 3])
def test_without_images_the_model_is_the_smooth_deformation(dims):
    template, _ = shapes(dims, number=1)
    model = PointDistribution(template[None], torch.ones(1, 9), template)
    prior = smooth_covariance(template, (template - template.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    assert torch.linalg.matrix_norm(model.covariance - prior) < 0.1 * torch.linalg.matrix_norm(prior)


@pytest.mark.parametrize("dims", [2, 3])
def test_learnt_shape_predicts_better_than_the_template_alone(dims):
    """On images that it has not seen, from the modes that the others vary by."""
    template, true = shapes(dims, number=80)
    learnt = PointDistribution(true[:60], torch.ones(60, 9), template)
    untaught = PointDistribution(template[None], torch.ones(1, 9), template)
    errors = [
        torch.linalg.vector_norm(model.judge(true[60:], torch.ones(20, 9)).predicted - true[60:], dim=2).mean()
        for model in (learnt, untaught)
    ]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("dims", [2, 3])
def test_wrong_landmarks_lose_their_weight(dims):
    """A fifth is wrong: nearly all of those count nothing, most of the others much, and positions get better."""
    template, true = shapes(dims)
    found, wrong = corrupted(true)
    ones = torch.ones(true.shape[:2])
    before = Relabelled(found, ones)
    after = relabel(found, ones, 0 * ones, before, template, cell_mm=1.0)
    assert (after.weights[wrong] == 0).float().mean() > 0.8
    assert after.weights[~wrong].median() > 0.5

    def error(relabelled):
        distance = torch.linalg.vector_norm(relabelled.points - true, dim=2)
        return float((relabelled.weights * distance).sum() / relabelled.weights.sum())

    assert error(after) < 0.5 * error(Relabelled(found, ones))


def test_contradiction_of_a_trusted_landmark_costs_weight():
    """Far from a landmark that was trusted, a prediction counts little; from one that was not, as much as before."""
    template, true = shapes(2)
    ones = torch.ones(true.shape[:2])
    moved = true.clone()
    moved[0, 0] += 30
    for trusted, counts in ((1.0, False), (0.0, True)):
        weights = relabel(true, ones, 0 * ones, Relabelled(moved, trusted * ones), template, cell_mm=1.0).weights
        assert bool(weights[0, 0] > 0.3) == counts
        assert weights[1, 0] > 0.3


def test_spread_and_missing():
    template, true = shapes(2)
    ones = torch.ones(true.shape[:2])
    spread, found = 0 * ones, true.clone()
    spread[0, 0], found[1, 1] = 20.0, torch.nan
    weights = relabel(found, ones, spread, Relabelled(true, 0 * ones), template, cell_mm=1.0).weights
    assert weights[0, 0] < 0.01
    assert weights[1, 1] == 0
    single = relabel(true[:, :1], ones[:, :1], spread[:, :1], Relabelled(true[:, :1], ones[:, :1]), template[:1], 1.0)
    torch.testing.assert_close(single.points, true[:, :1])
    assert single.weights[1, 0] == 1.0


def test_weights_of_matches():
    """By hand: cycle 1.5 cells and residual 3.5 cells count half each; what is unsure or missing nothing."""
    nan = float("nan")
    column = torch.tensor([0.0, 3.0, 3.0, 0.0, nan, 3.0])
    result = MatchResult(
        voxels=torch.zeros(6, 2),
        scores=torch.ones(6),
        ratios=torch.zeros(6),
        cycle_mm=column,
        residual_mm=torch.tensor([0.0, 0.0, 7.0, 0.0, nan, nan]),
        flags=("", "", "", "unsure", "missing", "no geometry"),
        covariance_mm2=torch.zeros(6, 2, 2),
    )
    assert match_weights(result, 2.0).tolist() == pytest.approx([1.0, 0.5, 0.25, 0.0, 0.0, 0.5])
    assert half_at(torch.tensor([2.0]), 1.0).tolist() == pytest.approx([0.2])
