"""The losses of landmark networks against their equations, and what missing landmarks do to them."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_dilation

from medpixcl.landmarks.heatmaps import activate_heatmaps, decode_heatmaps, encode_heatmaps, expected_positions
from medpixcl.losses.heatmap import (
    HEATMAP_LOSSES,
    LandmarkLoss,
    adaptive_wing,
    coordinate_loss,
    heatmap_bce,
    heatmap_cross_entropy,
    heatmap_mse,
    offset_loss,
)
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


WING = {"alpha": 2.3, "omega": 5.0, "epsilon": 0.4, "theta": 0.6}


def peaked(cells, spacing):
    """Random output around targets of peak one, the targets, the weights."""
    logits, _, points, weights = make(cells, spacing)
    return logits, encode_heatmaps(points, cells, stride=2, sigma_mm=1.5, spacing_mm=spacing, normalise=False), weights


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_losses_over_cells_of_the_equations(cells, spacing):
    output, target, weights = peaked(cells, spacing)
    for loss, each in (
        (heatmap_mse, reference.square),
        (heatmap_bce, reference.binary_cross_entropy),
        (partial(adaptive_wing, foreground=0.0, **WING), partial(reference.wing, **WING)),
        (partial(adaptive_wing, foreground=0.0), partial(reference.wing, alpha=2.1, omega=14, epsilon=1, theta=0.5)),
    ):
        wanted = reference.cell_mean(output, target, weights, each)
        assert float(loss(output, target, weights)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_cells_near_the_landmark_weigh_more(cells, spacing):
    """The loss map is one and ten where the dilated target is at least 0.2."""
    output, target, weights = peaked(cells, spacing)
    weights = torch.zeros_like(weights)
    weights[0, 1] = 1
    dilated = grey_dilation(target[0, 1].numpy(), size=3)
    assert 0 < (dilated >= 0.2).mean() < 1
    each = torch.zeros(cells, dtype=torch.float64)
    for cell in np.ndindex(*cells):
        each[cell] = reference.wing(float(output[(0, 1, *cell)]), float(target[(0, 1, *cell)]), **WING)
    wanted = float((each * torch.from_numpy(1 + 10.0 * (dilated >= 0.2))).mean())
    assert float(adaptive_wing(output, target, weights, **WING)) == pytest.approx(wanted, rel=1e-12)


def test_wing_has_no_step_and_no_kink_at_theta():
    target, weights = torch.full((1, 1, 1, 2), 0.3, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for theta in (0.5, 0.2):
        output = (target + theta + torch.tensor([-1e-7, 1e-7])).requires_grad_()
        values = [adaptive_wing(output[..., n : n + 1], target[..., :1], weights, theta=theta) for n in (0, 1)]
        slopes = [torch.autograd.grad(value, output, retain_graph=True)[0].sum() for value in values]
        assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-5)
        assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-5)


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_coordinate_loss_of_the_equation(cells, spacing):
    logits, _, points, weights = make(cells, spacing)
    weights[1, 2] = 0.4  # missing: does not count whatever its weight
    maps = logits.flatten(2).softmax(dim=2).view_as(logits)
    found = expected_positions(maps, stride=2)
    total = norm = 0.0
    for image, landmark in np.ndindex(2, 3):
        place = reference.expected(maps[image, landmark], 2)
        assert found[image, landmark].tolist() == pytest.approx(place, rel=1e-12)
        if not points[image, landmark].isnan().any():
            pairs = zip(place, points[image, landmark].tolist(), spacing, strict=True)
            total += float(weights[image, landmark]) * sum(((p - q) * s) ** 2 for p, q, s in pairs) ** 0.5
            norm += float(weights[image, landmark])
    loss = coordinate_loss(maps, points, weights, stride=2, spacing_mm=spacing)
    assert float(loss) == pytest.approx(total / norm, rel=1e-12)


@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_gradients_of_the_other_losses(cells, spacing):
    output, target, weights = peaked(cells, spacing)
    points = make(cells, spacing)[2]
    output.requires_grad_()
    for loss in (heatmap_mse, heatmap_bce, adaptive_wing):
        assert torch.autograd.gradcheck(lambda x, f=loss: f(x, target, weights), output)
    assert torch.autograd.gradcheck(
        lambda x: coordinate_loss(x.exp(), points, weights, stride=2, spacing_mm=spacing), output
    )


@pytest.mark.parametrize("heatmap", HEATMAP_LOSSES)
@pytest.mark.parametrize(("cells", "spacing"), CASES)
def test_landmarks_that_are_not_there_teach_nothing(cells, spacing, heatmap):
    """Missing, outside, of weight 0 in the batch or in the settings: the gradient is exactly 0, elsewhere it is not."""
    dims = len(cells)
    points = torch.tensor([[3.2] * dims, [NAN] * dims, [-9.0] * dims, [4.1] * dims, [2.7] * dims])[None]
    output = torch.rand(1, 5 * (1 + dims), *cells, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = LandmarkLoss(
        spacing, sigma_mm=1.5, heatmap=heatmap, coordinate_weight=0.3, landmark_weights=[1.0, 1.0, 1.0, 1.0, 0.0]
    )
    loss(output, {"points": points, "weights": torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]])}).backward()
    of_maps, of_offsets = output.grad[0, :5], output.grad[0, 5:].unflatten(0, (5, dims))
    for grad in (of_maps, of_offsets):
        assert grad.isfinite().all()
        assert (grad.flatten(1).abs().sum(dim=1) > 0).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("heatmap", "options"),
    [
        *[(name, {}) for name in HEATMAP_LOSSES],
        ("cross_entropy", {"heatmap_weight": 0.0, "coordinate_weight": 1.0}),
        ("bce", {"coordinate_weight": 1.0}),
    ],
)
def test_following_the_gradient_finds_the_landmark(dims, heatmap, options):
    """Maps that are free to take any value end with the landmark where it is, to a tenth of a cell."""
    cells, truth = [9] * dims, torch.full((1, 1, dims), 7.3)
    truth[..., -1] = 9.6
    output = torch.full((1, 1 + dims, *cells), 0.1, requires_grad=True)
    loss = LandmarkLoss([0.8] * dims, sigma_mm=1.5, heatmap=heatmap, **options)
    optimizer = torch.optim.Adam([output], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(output, {"points": truth, "weights": torch.ones(1, 1)}).backward()
        optimizer.step()
    maps = activate_heatmaps(output.detach()[:, :1], loss.activation)
    if loss.heatmap_weight > 0:
        found, _ = decode_heatmaps(maps, stride=2, method="quadratic")
    else:
        found = expected_positions(maps, stride=2)
    assert (found - truth).abs().max() < 0.2


def test_weights_of_landmarks():
    """Twice the weight counts as two landmarks."""
    output = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[[2.0, 3.0], [4.0, 1.0]]])
    losses = [
        float(
            LandmarkLoss([1.0, 1.0], landmark_weights=weights)(output, {"points": points, "weights": torch.ones(1, 2)})
        )
        for weights in ([1.0, 0.0], [0.0, 1.0], [2.0, 1.0], None)
    ]
    assert losses[2] == pytest.approx((2 * losses[0] + losses[1]) / 3, rel=1e-6)
    assert losses[3] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="heatmap is 'dice'; expected one of cross_entropy, bce, mse, adaptive_wing"):
        LandmarkLoss([1.0, 1.0], heatmap="dice")
    loss = LandmarkLoss([1.0, 1.0], landmark_weights=[1.0])
    with pytest.raises(ValueError, match="landmark_weights has 1 values for 2 landmarks"):
        loss(torch.zeros(1, 6, 4, 4), {"points": torch.zeros(1, 2, 2), "weights": torch.ones(1, 2)})
