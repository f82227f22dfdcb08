"""The losses of landmark networks against their equations, and what missing landmarks do to them."""

import numpy as np
import pytest
import torch

from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.losses.heatmap import LandmarkLoss, heatmap_cross_entropy, offset_loss
from tests.reference import heatmaps as reference

CASES = [((6, 5), [0.5, 0.8]), ((4, 5, 3), [0.5, 0.8, 1.4])]
NAN = float("nan")


def make(cells, spacing, seed=0):
    """Random output, points (one missing), weights (one zero), float64."""
    state = np.random.default_rng(seed)
    dims = len(cells)
    logits = torch.from_numpy(state.normal(size=(2, 3, *cells)))
    offsets = torch.from_numpy(state.normal(size=(2, 3, dims, *cells)))
    points = torch.from_numpy(state.uniform(0, 2 * np.array(cells) - 1, (2, 3, dims)))
    points[1, 2] = NAN
    weights = torch.tensor([[1.0, 0.3, 0.0], [0.7, 0.2, 0.0]], dtype=torch.float64)
    return logits, offsets, points, weights


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_cross_entropy_of_the_equation(cells, spacing):
    logits, _, points, weights = make(cells, spacing)
    target = encode_heatmaps(points, cells, stride=2, sigma_mm=1.5, spacing_mm=spacing)
    found = heatmap_cross_entropy(logits, target, weights)
    assert float(found) == pytest.approx(reference.cross_entropy(logits, target, weights), rel=1e-12)


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_offset_loss_of_the_equation(cells, spacing):
    _, offsets, points, weights = make(cells, spacing)
    weights[1, 2] = 0.4  # missing: does not count whatever its weight
    found = offset_loss(offsets, points, weights, stride=2, radius_mm=2.5, spacing_mm=spacing)
    wanted = reference.offset_loss(offsets, points, weights, 2, 2.5, spacing)
    assert float(found) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_gradients(cells, spacing):
    logits, offsets, points, weights = make(cells, spacing)
    target = encode_heatmaps(points, cells, stride=2, sigma_mm=1.5, spacing_mm=spacing)
    assert torch.autograd.gradcheck(lambda x: heatmap_cross_entropy(x, target, weights), logits.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda x: offset_loss(x, points, weights, stride=2, radius_mm=2.5, spacing_mm=spacing),
        offsets.requires_grad_(),
    )


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_right_output_costs_least(cells, spacing):
    """The cross-entropy is least at the logarithm of the target, where it is the target's entropy."""
    _, _, points, weights = make(cells, spacing)
    target = encode_heatmaps(points, cells, stride=2, sigma_mm=1.5, spacing_mm=spacing)
    best = target.clamp_min(1e-300).log().requires_grad_()
    loss = heatmap_cross_entropy(best, target, weights)
    loss.backward()
    assert best.grad.abs().max() < 1e-12
    entropy = torch.special.entr(target).flatten(2).sum(dim=2)
    assert float(loss.detach()) == pytest.approx(float((weights * entropy).sum() / weights.sum()))


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_module_joins_both_and_ignores_what_is_not_there(cells, spacing):
    logits, offsets, points, _ = make(cells, spacing)
    points[0, 1] = -50.0  # outside the view
    output = torch.cat([logits, offsets.flatten(1, 2)], dim=1).float().requires_grad_()
    loss = LandmarkLoss(spacing, sigma_mm=1.5, radius_mm=2.5, offset_weight=0.5)
    found = loss(output, {"points": points, "weights": torch.ones(2, 3)})
    seen = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    target = encode_heatmaps(points, cells, stride=2, sigma_mm=1.5, spacing_mm=spacing)
    wanted = reference.cross_entropy(logits, target, seen)
    wanted += 0.5 * reference.offset_loss(offsets, points, seen, 2, 2.5, spacing)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    found.backward()
    assert output.grad[0, 1].abs().max() == 0, "no gradient from a landmark outside"
    assert output.grad.isfinite().all()


def test_nothing_to_learn_costs_nothing():
    output = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = LandmarkLoss([1.0, 1.0])(output, {"points": torch.full((1, 1, 2), NAN), "weights": torch.ones(1, 1)})
    loss.backward()
    assert float(loss) == 0
    assert output.grad.abs().max() == 0
