"""Histogram and spectrum of a source against scikit-image and numpy; what they take away from the leak probe."""

import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms

from medpixcl.data.textures import ProceduralSources
from medpixcl.data.textures.fields import power_noise
from medpixcl.training.leak_probe import global_statistics, leak_probe
from medpixcl.transforms import RandCrossDomainMixUp
from medpixcl.transforms.source_matching import match_histogram, match_source, match_spectrum

SHAPES = {2: (24, 21), 3: (12, 10, 8)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def whole(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image[:1], dtype=torch.bool)


class TestHistogram:
    def test_by_hand(self):
        """Ranks 0, 2, 1 of the source take the target's values in order; the two equal ones take the lower middle."""
        source, target = torch.tensor([[[5.0, 9.0, 7.0]]]), torch.tensor([[[0.1, 0.4, 0.2]]])
        assert match_histogram(source, target, whole(source)).tolist() == torch.tensor([[[0.1, 0.4, 0.2]]]).tolist()
        tied = torch.tensor([[[5.0, 5.0, 7.0]]])
        torch.testing.assert_close(match_histogram(tied, target, whole(tied)), torch.tensor([[[0.1, 0.1, 0.4]]]))

    @DIMS
    def test_against_scikit_image(self, dims):
        source, target = 5 * rand(2, *SHAPES[dims], seed=1) - 1, rand(2, *SHAPES[dims], seed=2).square()
        found = match_histogram(source, target, whole(source))
        wanted = match_histograms(source.numpy(), target.numpy(), channel_axis=0)
        assert np.allclose(found, wanted, atol=1e-6)

    @DIMS
    def test_the_foreground_alone_is_compared(self, dims):
        source, target = rand(1, *SHAPES[dims], seed=1), rand(1, *SHAPES[dims], seed=2)
        mask = rand(1, *SHAPES[dims], seed=3) > 0.5
        found = match_histogram(source, target, mask)
        assert torch.equal(found[mask].sort().values, target[mask].sort().values)
        assert found.isfinite().all()

    def test_a_flat_source_becomes_the_median(self):
        target = rand(1, 5, 5)
        found = match_histogram(torch.full((1, 5, 5), 0.3), target, whole(target))
        torch.testing.assert_close(found, target.median().expand(1, 5, 5))


def ring_power(image: np.ndarray) -> np.ndarray:
    """Power in each ring of frequencies, one frequency after the other."""
    power, longest = np.abs(np.fft.fftn(image)) ** 2, max(image.shape)
    rings = np.zeros(longest + 1)
    frequencies = [np.fft.fftfreq(size) for size in image.shape]
    for place in np.ndindex(*image.shape):
        radius = np.sqrt(sum(frequencies[axis][index] ** 2 for axis, index in enumerate(place)))
        rings[round(radius * longest)] += power[place]
    return rings


class TestSpectrum:
    @DIMS
    def test_power_of_the_target_phase_of_the_source(self, dims):
        source, target = 4 * rand(2, *SHAPES[dims], seed=1), rand(2, *SHAPES[dims], seed=2).cumsum(1)
        found = match_spectrum(source, target)
        for channel in range(2):
            assert np.allclose(ring_power(found[channel].numpy()), ring_power(target[channel].numpy()), rtol=1e-3)
        axes = tuple(range(1, dims + 1))
        turned = torch.fft.fftn(found, dim=axes) * torch.fft.fftn(source, dim=axes).conj()
        assert (turned.imag.abs() <= 1e-3 * turned.abs() + 1e-3).all()
        assert (turned.real > -1e-3).all()

    def test_an_image_matches_itself(self):
        image = rand(1, 16, 16)
        torch.testing.assert_close(match_source(image, image, whole(image), "spectrum"), image, atol=1e-5, rtol=0)

    def test_a_flat_source(self):
        """Only its mean has power: it takes the target's mean, nothing becomes NaN."""
        target = rand(1, 8, 8)
        torch.testing.assert_close(match_spectrum(torch.full((1, 8, 8), 0.3), target), target.mean().expand(1, 8, 8))


def test_an_unknown_way():
    image = rand(1, 4, 4)
    with pytest.raises(ValueError, match=r"match is 'mean'; expected one of none, moments, spectrum"):
        match_source(image, image, whole(image), "mean")


@DIMS
def test_less_is_left_for_the_leak_probe(dims):
    """Rough targets under smooth sources, on both sides of what is held to be little (0.25)."""
    shape = {2: (32, 32), 3: (12, 12, 12)}[dims]
    leaks = {}
    for match in ("moments", "spectrum"):
        mixup = RandCrossDomainMixUp(ProceduralSources(shape), match=match).set_random_state(0)
        random = np.random.default_rng(1)
        mixed = [mixup(torch.from_numpy(power_noise(shape, random, beta=1.0))[None]) for _ in range(300)]
        statistics = global_statistics(torch.stack([one.image for one in mixed]))
        leaks[match] = leak_probe(statistics, torch.cat([one.opacity for one in mixed])).r2
    assert leaks["moments"] > 0.25
    assert leaks["spectrum"] < 0.25
