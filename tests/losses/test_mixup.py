"""The objective of mix-up pretraining against its equations, hand-computed values and closed forms."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from medpixcl.losses.mixup import (
    MixUpObjective,
    mixup_terms,
    opacity_loss,
    physics_loss,
    pool_opacity,
    reconstruction_loss,
)
from tests.reference import mixup as reference

SHAPES = [(4, 5), (3, 4, 2)]


def make(shape, logits=1):
    random = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    images = {name: torch.rand(3, 2, *shape, **random) for name in ("t", "s", "target", "source", "mixed")}
    return images, torch.randn(3, logits, **random), torch.rand(3, **random)


@pytest.mark.parametrize("shape", SHAPES)
def test_terms_of_the_equations(shape):
    images, logits, opacity = make(shape)
    output = {
        "target": images["t"],
        "source": images["s"],
        "opacity_logits": logits,
        "opacity": logits.sigmoid(),
    }
    truth = {name: images[name] for name in ("target", "source", "mixed")} | {"opacity": opacity}
    weights = opacity.tolist()
    for kind, power in (("l1", 1), ("l2", 2)):
        found = mixup_terms(output, truth, reconstruction=kind, weigh_by_opacity=True)
        wanted = {
            "reconstruction": reference.mean_error(images["t"], images["target"], power, weights),
            "source": reference.mean_error(images["s"], images["source"], power, [1 - w for w in weights]),
            "opacity": reference.squared(logits[:, 0].tolist(), weights),
            "physics": reference.physics(
                images["t"].numpy(), images["s"].numpy(), logits[:, 0].sigmoid().tolist(), images["mixed"].numpy()
            ),
        }
        assert {name: float(value) for name, value in found.items()} == pytest.approx(wanted, rel=1e-12)


def test_opacity_losses_of_the_equations():
    _, logits, opacity = make((2, 2), logits=3)
    one = logits[:, :1]
    found = float(opacity_loss(one, opacity, kind="cross_entropy"))
    assert found == pytest.approx(reference.cross_entropy(one[:, 0].tolist(), opacity.tolist()), rel=1e-12)
    found = float(opacity_loss(logits, opacity, kind="ordinal", opacity_range=[0.2, 0.8]))
    assert found == pytest.approx(reference.ordinal(logits.tolist(), opacity.tolist(), 0.2, 0.8), rel=1e-7)


def test_opacity_by_hand():
    """Said 0.9, true 0.7: 0.04 squared, 0.764528 cross-entropy over a floor of 0.610864."""
    true = torch.tensor([0.7], dtype=torch.float64)
    said = torch.tensor([[0.9]], dtype=torch.float64).logit()
    assert float(opacity_loss(said, true)) == pytest.approx(0.04)
    assert float(opacity_loss(said, true, kind="cross_entropy")) == pytest.approx(0.764528, abs=1e-6)
    assert float(opacity_loss(true[None].logit(), true, kind="cross_entropy")) == pytest.approx(0.610864, abs=1e-6)


def test_mixture_by_hand():
    t, s = torch.tensor([[0.0, 1], [0.5, 0.25]]), torch.tensor([[1.0, 0], [0.5, 0.75]])
    x = torch.tensor([[0.25, 0.75], [0.5, 0.375]])
    t, s, x = (image[None, None] for image in (t, s, x))
    assert float(reconstruction_loss(x, t)) == 0.15625
    assert float(reconstruction_loss(x, t, kind="l2")) == 0.03515625
    assert float(physics_loss(t, s, torch.tensor([[0.75]]), x)) == 0
    assert float(physics_loss(t, s, torch.full((1, 1, 3, 1), 0.75), x)) == 0, "a constant map is the same"


def test_pooling_by_hand():
    opacity = torch.ones(1, 1, 4, 4)
    opacity[..., 3] = 0.25
    assert pool_opacity(opacity, (2, 2))[0, 0].tolist() == [[1, 0.625]] * 2
    assert pool_opacity(opacity, ()).tolist() == [[0.8125]]
    volume = opacity[..., None].expand(-1, -1, -1, -1, 4)
    assert pool_opacity(volume, (2, 2, 2))[0, 0, 1, :, 1].tolist() == [1, 0.625]
    assert pool_opacity(torch.tensor([0.3]), (2, 1, 2)).shape == (1, 1, 2, 1, 2)


@pytest.mark.parametrize(("low", "high", "squared"), [(0.0, 1.0, 1 / 12), (0.2, 0.8, 0.03)])
def test_constant_predictor_under_a_uniform_law(low, high, squared):
    """Always 0.5 costs the law's variance."""
    middle = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    found = opacity_loss(torch.zeros(2000, 1, dtype=torch.float64), low + (high - low) * middle)
    assert float(found) == pytest.approx(squared, rel=1e-6)


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 0.17857), (2.0, 0.05)])
def test_constant_predictor_under_a_beta_law(alpha, variance):
    drawn = torch.from_numpy(np.random.default_rng(0).beta(alpha, alpha, 200_000))
    found = float(opacity_loss(torch.zeros(len(drawn), 1, dtype=torch.float64), drawn))
    assert found == pytest.approx(variance, abs=5 * 0.09 / 200_000**0.5)


def test_ssim_is_that_of_skimage():
    """Gaussian weights over 11 x 11 pixels that lie in the image."""
    random = np.random.default_rng(0)
    one, other = random.random((2, 24, 24))
    _, full = structural_similarity(
        one, other, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    found = reconstruction_loss(torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None], kind="ssim")
    assert float(found) == pytest.approx(1 - full[5:-5, 5:-5].mean(), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["squared", "cross_entropy", "ordinal"])
def test_gradients(shape, kind):
    images, logits, opacity = make(shape, 3 if kind == "ordinal" else 1)
    truth = {name: images[name] for name in ("target", "source", "mixed")} | {"opacity": opacity}
    loss = MixUpObjective(source_weight=0.5, physics_weight=0.3, reconstruction="l2", opacity=kind)

    def run(target, source, logits):
        value = logits.sigmoid().mean(1, keepdim=True)
        return loss({"target": target, "source": source, "opacity": value, "opacity_logits": logits}, truth)

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in (images["t"], images["s"], logits)])


def test_a_weight_of_zero_leaves_its_part_without_gradient():
    images, logits, opacity = make((4, 4))
    truth = {"target": images["target"], "opacity": opacity}
    for weights, idle in (({"opacity_weight": 0.0}, "opacity_logits"), ({"reconstruction_weight": 0.0}, "target")):
        output = {"target": images["t"].clone().requires_grad_(), "opacity_logits": logits.clone().requires_grad_()}
        loss = MixUpObjective(**weights)
        loss(output, truth).backward()
        assert {name for name, value in output.items() if value.grad is None} == {idle}
        assert loss.latest.keys() == {"reconstruction", "opacity"}


def test_half_precision_is_computed_in_float32():
    images, logits, opacity = make((4, 4))
    output = {"target": images["t"].bfloat16(), "opacity_logits": logits.bfloat16()}
    found = MixUpObjective()(output, {"target": images["target"].float(), "opacity": opacity.float()})
    wanted = MixUpObjective()(
        {name: value.double() for name, value in output.items()}, {"target": images["target"], "opacity": opacity}
    )
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_bad_arguments():
    images, logits, opacity = make((4, 4))
    output, truth = {"target": images["t"], "opacity_logits": logits}, {"target": images["target"], "opacity": opacity}
    with pytest.raises(ValueError, match="the term source has a weight, but the network gives no source"):
        MixUpObjective(source_weight=1)(output, truth)
    with pytest.raises(ValueError, match="expected none below 0 and one above"):
        MixUpObjective(opacity_weight=-1)
    with pytest.raises(ValueError, match="must be multiples of the network's coarsest stride"):
        reconstruction_loss(images["t"][..., :2], images["t"])
    with pytest.raises(ValueError, match="the reconstruction loss is 'l3'"):
        reconstruction_loss(images["t"], images["t"], kind="l3")
    with pytest.raises(ValueError, match="the opacity loss is 'l3'"):
        opacity_loss(logits, opacity, kind="l3")
    with pytest.raises(ValueError, match="found 3 logits per image"):
        opacity_loss(torch.zeros(3, 3, dtype=torch.float64), opacity)
