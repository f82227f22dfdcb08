"""Intensity changes against numpy and scipy, and which class gets which."""

from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import correlate, correlate1d
from scipy.stats import chisquare, kstest, norm

from medpixcl.blur import gaussian_blur
from medpixcl.transforms import RandClassIntensityd
from medpixcl.transforms.intensity import BIAS_CONTROL_POINTS, Intensity, IntensityRanges

DIMS = pytest.mark.parametrize("dims", [2, 3])
SHAPE = {2: (30, 24), 3: (12, 14, 10)}
NOTHING: dict[str, Any] = {"brightness": 1.0, "contrast": 1.0, "gamma": 1.0, "noise": 0.0, "blur": 0.0, "bias": 0.0}


def grey(dims: int, low: float = 0.2, high: float = 0.7, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, (1, *SHAPE[dims]))).float()


def change(seed: int = 0, **strength: Any) -> Intensity:
    return Intensity(**(NOTHING | strength), seed=seed)


def literal_convolutions(image: np.ndarray, generator: torch.Generator) -> tuple[np.ndarray, list[int]]:
    """The network of random weights by SciPy, channel by channel; and the sizes of its kernels."""
    dims, values, sizes = image.ndim - 1, image, []
    for wanted in (2, 2, 2, len(image)):
        sizes.append([1, 3][int(torch.randint(2, (1,), generator=generator))])
        weights = torch.randn(wanted, len(values), *[sizes[-1]] * dims, generator=generator).numpy()
        constants = torch.randn(wanted, generator=generator).numpy()
        convolved = []
        for kernels, constant in zip(weights, constants, strict=True):
            parts = [correlate(v, k.astype(float), mode="nearest") for v, k in zip(values, kernels, strict=True)]
            convolved.append(np.sum(parts, axis=0) + constant)
        values = np.stack(convolved)
        if len(sizes) < 4:
            values = np.where(values > 0, values, 0.01 * values)
    values = (values - values.mean()) / values.std() * image.std() + image.mean()
    return values, sizes


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the check of types, which tests have and users do not."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class TestEachChange:
    @DIMS
    def test_nothing(self, dims):
        torch.testing.assert_close(change().apply(grey(dims)), grey(dims), rtol=0, atol=1e-7)

    @DIMS
    def test_brightness(self, dims):
        image = grey(dims)
        expected = np.clip(image.numpy() * 1.6, 0, 1)
        assert (expected == 1).any()
        np.testing.assert_allclose(change(brightness=1.6).apply(image).numpy(), expected, atol=1e-6)

    @DIMS
    def test_contrast(self, dims):
        image = grey(dims).numpy()
        expected = np.clip((image - image.mean()) * 2.5 + image.mean(), 0, 1)
        np.testing.assert_allclose(change(contrast=2.5).apply(grey(dims)).numpy(), expected, atol=1e-6)

    @DIMS
    def test_gamma(self, dims):
        expected = grey(dims).numpy() ** 1.8
        np.testing.assert_allclose(change(gamma=1.8).apply(grey(dims)).numpy(), expected, atol=1e-6)

    @DIMS
    def test_blur(self, dims):
        """Weights of the normal distribution over each pixel; the border goes on outside."""
        expected, reach = grey(dims)[0].numpy().astype(float), 7
        edges = np.arange(-reach - 0.5, reach + 1)
        weights = np.diff(norm.cdf(edges, scale=1.7))
        for axis in range(dims):
            expected = correlate1d(expected, weights / weights.sum(), axis=axis, mode="nearest")
        np.testing.assert_allclose(change(blur=1.7).apply(grey(dims))[0].numpy(), expected, atol=1e-5)

    @DIMS
    def test_noise(self, dims):
        image = torch.full((1, *SHAPE[dims]), 0.5)
        noise = torch.cat([change(seed, noise=0.05).apply(image).flatten() - 0.5 for seed in range(3)]).numpy()
        assert kstest(noise, norm(scale=0.05).cdf).pvalue > 0.01
        assert torch.equal(change(7, noise=0.05).apply(image), change(7, noise=0.05).apply(image))

    @DIMS
    def test_bias(self, dims):
        """The logarithm of the factor is smooth, and normal at the control points."""
        size = 3 * (BIAS_CONTROL_POINTS - 1) + 1
        image = torch.full((1, *[size] * dims), 0.4)
        fields = np.stack([np.log(change(seed, bias=0.1).apply(image)[0].numpy() / 0.4) for seed in range(12)])
        at_control = fields[(slice(None), *[slice(None, None, 3)] * dims)].flatten()
        assert kstest(at_control, norm(scale=0.1).cdf).pvalue > 0.01
        steps = np.abs(np.diff(fields, axis=1))
        assert steps.max() < 0.6 * np.abs(np.diff(at_control.reshape(12, *[BIAS_CONTROL_POINTS] * dims), axis=1)).max()

    @DIMS
    def test_window(self, dims):
        image = grey(dims)
        expected = np.clip((image.numpy() - 0.3) / (0.6 - 0.3), 0, 1)
        assert (expected == 0).any()
        assert (expected == 1).any()
        np.testing.assert_allclose(change(window=(0.3, 0.6)).apply(image).numpy(), expected, atol=1e-6)

    @DIMS
    @pytest.mark.parametrize("channels", [1, 3])
    def test_convolution(self, dims, channels):
        image = grey(dims).repeat(channels, *[1] * dims) * torch.linspace(0.5, 1, channels).view(-1, *[1] * dims)
        sizes = []
        for seed in range(6):
            values, drawn = literal_convolutions(image.numpy().astype(float), torch.Generator().manual_seed(seed))
            expected = np.clip(0.7 * image.numpy() + 0.3 * values, 0, 1)
            np.testing.assert_allclose(change(seed, convolution=0.3).apply(image).numpy(), expected, atol=2e-5)
            sizes += drawn
        assert set(sizes) == {1, 3}

    @DIMS
    def test_convolution_makes_dark_things_bright_and_keeps_their_place(self, dims):
        """A bright and a dark half: some contrasts turn round; both stay uniform away from the edge."""
        image = torch.full((1, *[20] * dims), 0.2)
        image[(0, *[slice(None)] * (dims - 1), slice(10, None))] = 0.8
        signs = set()
        for seed in range(20):
            changed = change(seed, convolution=1.0).apply(image)[0]
            dark, bright = changed[..., :6], changed[..., 14:]
            torch.testing.assert_close(dark, dark.flatten()[0].expand_as(dark), rtol=0, atol=1e-4)
            torch.testing.assert_close(bright, bright.flatten()[0].expand_as(bright), rtol=0, atol=1e-4)
            signs.add(bool(bright.mean() > dark.mean()))
        assert signs == {True, False}

    @DIMS
    def test_convolution_of_a_uniform_image(self, dims):
        """There is no contrast to change."""
        image = torch.full((1, *SHAPE[dims]), 0.4)
        torch.testing.assert_close(change(3, convolution=1.0).apply(image), image, rtol=0, atol=1e-5)

    @DIMS
    def test_result_stays_between_0_and_1(self, dims):
        strong = change(brightness=3.0, contrast=4.0, gamma=0.3, noise=0.5, blur=0.5, bias=1.0, convolution=1.0)
        changed = strong.apply(grey(dims, 0.0, 1.0))
        assert changed.isfinite().all()
        assert changed.min() >= 0
        assert changed.max() <= 1


class TestBlur:
    @DIMS
    def test_constant_stays_as_it_is(self, dims):
        air = torch.full((2, *[9] * dims), -1000.0)
        torch.testing.assert_close(gaussian_blur(air, [2.0] * dims), air)

    def test_axis_left_alone(self):
        image = torch.rand(1, 6, 6, 6)
        found = gaussian_blur(image, [0.0, 1.0, 0.0])
        torch.testing.assert_close(found.sum((1, 3)).shape, torch.Size([1, 6]))
        for index in range(6):
            alone = gaussian_blur(image[:, index : index + 1], [0.0, 1.0, 0.0])
            torch.testing.assert_close(found[:, index : index + 1], alone)


class TestRanges:
    def test_samples_stay_inside_and_fill_the_range(self):
        ranges = {"brightness": (0.5, 2.0), "contrast": (0.3, 2.3), "gamma": (0.25, 4.0)}
        ranges |= {"noise": (0.01, 0.04), "blur": (0.5, 1.0), "bias": (0.1, 0.2), "convolution": (0.2, 0.9)}
        state = np.random.RandomState(0)
        drawn = [IntensityRanges(**ranges).sample(state) for _ in range(400)]
        for name, (low, high) in ranges.items():
            values = np.array([getattr(one, name) for one in drawn])
            if name == "gamma":  # as often below 1 as above
                values, low, high = np.log(values), np.log(low), np.log(high)
            assert values.min() >= low
            assert values.max() <= high
            assert kstest((values - low) / (high - low), "uniform").pvalue > 0.01
        assert len({one.seed for one in drawn}) == 400

    @pytest.mark.parametrize("more", [{}, {"window": (0.1, 0.3), "convolution": (0.2, 0.9)}], ids=["off", "on"])
    def test_a_seed_gives_what_it_always_gave(self, more):
        """Brightness to bias, then gamma again, then the seed: window and convolutions draw after them, or nothing."""
        state = np.random.RandomState(5)
        brightness, contrast, _, noise, blur, bias = [
            state.uniform(*ends) for ends in [(0.5, 2.0), (1.0, 1.0), (0.5, 2.0), (0.0, 0.1), (0.0, 0.0), (0.0, 0.2)]
        ]
        gamma, seed = np.exp(state.uniform(np.log(0.5), np.log(2.0))), state.randint(2**31)
        ranges = IntensityRanges(brightness=(0.5, 2.0), gamma=(0.5, 2.0), noise=(0.0, 0.1), bias=(0.0, 0.2), **more)
        used = np.random.RandomState(5)
        drawn = ranges.sample(used)
        found = (drawn.brightness, drawn.contrast, drawn.gamma, drawn.noise, drawn.blur, drawn.bias, drawn.seed)
        assert found == (brightness, contrast, gamma, noise, blur, bias, seed)
        if more:
            below, above = state.uniform(0.1, 0.3), state.uniform(0.1, 0.3)
            assert (drawn.window, drawn.convolution) == ((below, 1 - above), state.uniform(0.2, 0.9))
        else:
            assert (drawn.window, drawn.convolution) == ((0.0, 1.0), 0.0)
        assert used.uniform() == state.uniform()

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"noise": (0.2, 0.1)}, r"^noise must be two ascending numbers from 0 up, found \[0.2, 0.1\]$"),
            ({"blur": (-1.0, 0.1)}, r"^blur must be two ascending numbers from 0 up, found \[-1.0, 0.1\]$"),
            ({"contrast": (1.0,)}, r"^contrast must be two ascending numbers from 0 up, found \[1.0\]$"),
            ({"gamma": (0.0, 1.0)}, r"^gamma must be two ascending numbers above 0, found \[0.0, 1.0\]$"),
            ({"window": (0.0, 0.5)}, r"^window must be two ascending numbers below 0.5, found \[0.0, 0.5\]$"),
            ({"convolution": (0.0, 1.5)}, r"^convolution must be two ascending numbers up to 1, found \[0.0, 1.5\]$"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_errors(self, bad, message):
        with pytest.raises(ValueError, match=message):
            IntensityRanges(**bad)


def item_of(image: torch.Tensor, classes: torch.Tensor, entropy: torch.Tensor) -> dict[str, Any]:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    values = {"image": image, "class_image": classes, "entropy_image": entropy, "depth": image * 3}
    return {name: MetaTensor(value, affine=affine) for name, value in values.items()}


def exactly(factor: float) -> dict[str, Any]:
    return {"brightness": (factor, factor)}


class TestByClass:
    FACTORS = (0.5, 0.8, 1.2)

    def transform(self, *, seed: int = 0, **options: Any) -> RandClassIntensityd:
        low, medium, high = (exactly(factor) for factor in self.FACTORS)
        transform = RandClassIntensityd("image", low=low, medium=medium, high=high, **options)
        transform.set_random_state(seed)
        return transform

    @DIMS
    def test_every_pixel_by_its_own_class(self, dims):
        image = grey(dims)
        classes = torch.randint(0, 3, image.shape, generator=torch.Generator().manual_seed(0))
        changed = self.transform(mode="pixel")(item_of(image, classes, torch.ones_like(image)))["image"]
        expected = image * torch.tensor(self.FACTORS)[classes]
        torch.testing.assert_close(changed.as_tensor(), expected)

    @DIMS
    @pytest.mark.parametrize("drawn", [0, 1, 2])
    def test_class_of_the_drawn_pixel_sets_the_whole_view(self, dims, drawn):
        """Only one pixel has any entropy, so it is the one drawn."""
        image = grey(dims)
        classes = torch.full(image.shape, (drawn + 1) % 3)
        entropy = torch.zeros_like(image)
        spot = (0, *(n // 3 for n in SHAPE[dims]))
        classes[spot], entropy[spot] = drawn, 2.0
        changed = self.transform()(item_of(image, classes, entropy))["image"]
        torch.testing.assert_close(changed.as_tensor(), image * self.FACTORS[drawn])

    @pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
    def test_pixel_is_drawn_by_informativeness(self, exponent):
        counts, levels = np.array([60, 28, 12]), np.array([1.0, 2.0, 5.0])
        classes = torch.repeat_interleave(torch.arange(3), torch.from_numpy(counts)).view(1, 10, 10)
        item = item_of(torch.full((1, 10, 10), 0.5), classes, torch.from_numpy(levels).float()[classes])
        transform = self.transform(exponent=exponent)
        found = [0, 0, 0]
        for _ in range(600):
            factor = transform(item)["image"].mean().item() / 0.5
            found[int(np.argmin(np.abs(np.array(self.FACTORS) - factor)))] += 1
        weights = counts * levels**exponent
        assert chisquare(found, weights / weights.sum() * 600).pvalue > 0.01

    def test_without_any_entropy(self):
        image = grey(2)
        changed = self.transform()(item_of(image, torch.ones_like(image).long(), torch.zeros_like(image)))["image"]
        torch.testing.assert_close(changed.as_tensor(), image * self.FACTORS[1])

    @DIMS
    def test_probability(self, dims):
        image = grey(dims)
        item = item_of(image, torch.zeros_like(image).long(), torch.ones_like(image))
        assert torch.equal(self.transform(probability=0.0)(item)["image"], item["image"])
        transform = self.transform(probability=0.4)
        changed = sum(not torch.equal(transform(item)["image"], item["image"]) for _ in range(200))
        assert abs(changed / 200 - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 200)

    @DIMS
    def test_other_keys_and_the_affine_are_kept(self, dims):
        """An exogenous channel, entropy and classes stay, and so does the item given."""
        image = grey(dims)
        item = item_of(image, torch.zeros_like(image).long(), torch.ones_like(image))
        changed = self.transform()(item)
        for name in ("depth", "class_image", "entropy_image"):
            assert changed[name] is item[name]
        assert torch.equal(changed["image"].affine, item["image"].affine)
        assert torch.equal(item["image"].as_tensor(), image)

    @DIMS
    @pytest.mark.parametrize("mode", ["drawn", "pixel"])
    def test_ranges_of_nothing_change_nothing(self, dims, mode):
        image = grey(dims, 0.0, 1.0)
        classes = torch.randint(0, 3, image.shape, generator=torch.Generator().manual_seed(0))
        transform = RandClassIntensityd("image", low={}, medium={}, high={}, mode=mode)
        changed = transform(item_of(image, classes, torch.ones_like(image)))["image"].as_tensor()
        torch.testing.assert_close(changed, image, rtol=0, atol=1e-6)

    def test_seed(self):
        image = grey(2)
        strong = {"noise": (0.0, 0.2), "bias": (0.0, 0.4), "gamma": (0.5, 2.0)}
        item = item_of(image, torch.zeros_like(image).long(), torch.ones_like(image))
        results = []
        for seed in (1, 1, 2):
            transform = RandClassIntensityd("image", low=strong, medium=strong, high=strong)
            transform.set_random_state(seed)
            results.append(transform(item)["image"])
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_two_views_change_independently(self):
        wide = {"brightness": (0.5, 1.0)}
        image = grey(2)
        one = item_of(image, torch.zeros_like(image).long(), torch.ones_like(image))
        both = {f"{name}_{side}": one[name] for name in ("class_image", "entropy_image", "image") for side in "ab"}
        transform = RandClassIntensityd(["image_a", "image_b"], low=wide, medium=wide, high=wide)
        changed = transform(both)
        assert not torch.equal(changed["image_a"], changed["image_b"])

    def test_mode(self, untyped):
        with pytest.raises(ValueError, match=r"^mode must be 'drawn' or 'pixel', found 'both'$"):
            RandClassIntensityd("image", low={}, medium={}, high={}, mode="both")
