"""The leak probe finds a planted leak, and finds nothing where there is nothing."""

import numpy as np
import pytest
import torch
from scipy import stats

from medpixcl.training.leak_probe import LeakProbeR2, global_statistics, leak_probe, r_squared

SHAPES = [(16, 16), (8, 8, 8)]


def mixtures(shape, number=150, shift=0.0, seed=0):
    """Pictures of white noise whose mean is the opacity times ``shift``, and the opacities."""
    random = np.random.default_rng(seed)
    opacity = random.uniform(0.2, 0.8, number)
    images = random.normal(size=(number, 1, *shape)) + shift * opacity.reshape(-1, *[1] * (len(shape) + 1))
    return torch.from_numpy(images), torch.from_numpy(opacity)


@pytest.mark.parametrize("shape", SHAPES)
def test_shifted_mean_is_found_and_noise_is_not(shape):
    images, opacity = mixtures(shape, shift=5.0)
    found = leak_probe(global_statistics(images), opacity, repeats=1)
    assert found.r2 > 0.9
    assert len(found.folds) == 5
    assert found.r2 == pytest.approx(np.mean(found.folds))
    assert found.spread == pytest.approx(np.std(found.folds, ddof=1))
    images, opacity = mixtures(shape)
    nothing = leak_probe(global_statistics(images), opacity, repeats=1)
    assert nothing.r2 < 0.1
    assert "150 mixtures" in str(nothing)


def test_spread_of_a_mixture_is_found_though_it_falls_and_rises():
    """The variance of unmatched noise over both opacities: only a quadratic fit can read a band's power."""
    random = np.random.default_rng(0)
    opacity = random.uniform(0.2, 0.8, 200)
    fine, coarse = random.normal(size=(2, 200, 16, 16))
    coarse = 16 * np.fft.ifft2(np.fft.fft2(coarse) * (np.hypot(*np.meshgrid(*[np.fft.fftfreq(16)] * 2)) < 0.1)).real / 5
    share = opacity[:, None, None]
    images = torch.from_numpy(share * fine + (1 - share) * coarse)[:, None]
    assert leak_probe(global_statistics(images), torch.from_numpy(opacity), repeats=1).r2 > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_by_hand(shape):
    """A wave of one frequency: mean, spread and quantiles of its values, all power in one band."""
    rows = np.cos(2 * np.pi * np.arange(shape[0]) / 4)
    image = 3 + 2 * np.broadcast_to(rows.reshape(-1, *[1] * (len(shape) - 1)), shape)
    found = global_statistics(torch.from_numpy(image.copy())[None, None])[0].numpy()
    assert found.shape == (17,)
    np.testing.assert_allclose(found[:2], [3, 2**0.5], atol=1e-12)
    np.testing.assert_allclose(found[2:9], np.quantile(image, [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]), atol=1e-12)
    # A quarter of a cycle a voxel is the upper end of the fourth of eight bands up to a half.
    assert found[9:].argmax() == 3
    others = np.delete(found[9:], 3)
    assert others[others != 0].max() < -25


def test_r_squared_is_that_of_a_regression_line():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    line = stats.linregress(x, y + x)
    fitted = torch.from_numpy(line.intercept + line.slope * x)
    assert r_squared(fitted, torch.from_numpy(y + x)) == pytest.approx(line.rvalue**2)


def test_as_a_metric_of_an_evaluator():
    """The same number from batches as from all at once."""
    images, opacity = mixtures((8, 8), number=60, shift=3.0)
    metric = LeakProbeR2(folds=3, repeats=1)
    for part in range(3):
        metric.update((images[20 * part : 20 * part + 20], opacity[20 * part : 20 * part + 20]))
    assert metric.compute() == leak_probe(global_statistics(images), opacity, folds=3, repeats=1).r2


def test_too_few_mixtures_are_not_the_end_of_a_training():
    images, opacity = mixtures((8, 8), number=60)
    for few in ((images[:29], opacity[:29]), (images, torch.full_like(opacity, 0.5))):
        metric = LeakProbeR2(folds=3, repeats=1)
        metric.update(few)
        assert np.isnan(metric.compute())


def test_bad_input():
    images, opacity = mixtures((8, 8), number=50)
    rows = global_statistics(images)
    with pytest.raises(ValueError, match="found 49 mixtures for 5 folds; the leak probe needs at least 50"):
        leak_probe(rows[:49], opacity[:49])
    with pytest.raises(ValueError, match=r"have the opacity 0\.5"):
        leak_probe(rows, torch.full_like(opacity, 0.5))
    with pytest.raises(ValueError, match="hold NaN"):
        leak_probe(rows * torch.nan, opacity)
