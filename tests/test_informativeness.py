"""Entropy against its equation, scikit-image and hand-computed values; classes and weights by their definition."""

import math
import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from skimage.filters.rank import entropy as rank_entropy
from skimage.morphology import disk

from medpixcl.informativeness import classify_informativeness, local_entropy, sampling_weights
from tests.reference import entropy as reference

BACKENDS = pytest.mark.parametrize("backend", ["numba", "torch"])
GREY_8_BIT = {"bins": 256, "value_range": (0, 255)}


def batch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))[None, None]


def columns_and_rows() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:64, :64]
    return columns, rows


X, Y = columns_and_rows()
CARD = {
    # 64 x 64, 8 bits, disk of radius 10: entropy at the centre, in the corner, and its mean
    "checkerboard": ((X + Y) % 2 * 255, 0.999821, 0.999644, 0.999834),
    "ramp": (4 * X, 4.250459, 3.344624, 4.123118),
    "linear": ((3 * X + 5 * Y) % 256, 6.792445, 5.705688, 6.69362),
    "quadratic": ((X**2 + 3 * Y**2 + X * Y) % 256, 6.978713, 5.977801, 6.941944),
    "constant": (np.full((64, 64), 7), 0.0, 0.0, 0.0),
}


class TestLocalEntropy:
    @BACKENDS
    @pytest.mark.parametrize("name", CARD)
    def test_values_of_synthetic_images(self, name, backend):
        image, centre, corner, mean = CARD[name]
        result = local_entropy(batch(image), radius=10, backend=backend, **GREY_8_BIT)[0, 0]
        found = [result[32, 32].item(), result[0, 0].item(), result.double().mean().item()]
        assert found == pytest.approx([centre, corner, mean], abs=1e-5)

    @BACKENDS
    @pytest.mark.parametrize("footprint", ["ball", "box"])
    @pytest.mark.parametrize(
        ("shape", "radius", "spacing"),
        [
            ((11, 14), 2, None),
            ((11, 14), 2.5, None),
            ((12, 9), 1.25, (0.4, 0.7)),
            ((5, 7, 6), 2, None),
            ((4, 8, 9), 3.0, (3.0, 1.0, 0.8)),
        ],
    )
    @pytest.mark.parametrize("masked", [False, True])
    def test_equals_the_equation(self, shape, radius, spacing, footprint, masked, backend):
        rng = np.random.default_rng(0)
        image = rng.normal(100, 30, shape).astype(np.float32)
        mask = rng.random(shape) < 0.6 if masked else None
        counted = image if mask is None else image[mask]
        options = {"radius": radius, "spacing": spacing, "footprint": footprint, "bins": 9}
        expected = reference.local_entropy(image, **options, low=counted.min(), high=counted.max(), mask=mask)
        found = local_entropy(
            batch(image), **options, mask=None if mask is None else torch.from_numpy(mask)[None, None], backend=backend
        )[0, 0]
        assert max(expected.values()) > 1.5
        for pixel, value in expected.items():
            assert found[pixel].item() == pytest.approx(value, abs=1e-5)

    @pytest.mark.data
    @pytest.mark.parametrize("bins", [32, 256])
    @pytest.mark.parametrize("footprint", ["ball", "box"])
    def test_equals_scikit_image_on_a_radiograph(self, data_dir, bins, footprint):
        with Image.open(data_dir / "ceph_isbi2015" / "native" / "026.jpg") as file:
            picture = np.array(file.convert("L"))[:700, 1235:]  # reaches two borders and the corner
        neighbours = disk(10) if footprint == "ball" else np.ones((21, 21))
        expected = rank_entropy((picture.astype(int) * bins // 256).astype(np.uint8), neighbours)
        found = local_entropy(batch(picture), footprint=footprint, bins=bins, value_range=(0, 256))
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)

    def test_levels_of_8_bit_data_are_its_values(self):
        ramp = batch(np.arange(256)[None].repeat(3, axis=0))
        found = local_entropy(ramp, radius=1, footprint="box", **GREY_8_BIT)
        assert torch.allclose(found[0, 0, :, 1:-1], torch.tensor(math.log2(3)))

    def test_values_beyond_the_range_fall_into_the_outer_levels(self, generator):
        image = torch.randn(1, 1, 40, 40, generator=generator)
        options = {"radius": 3, "bins": 16, "value_range": (-0.5, 0.5)}
        assert torch.equal(local_entropy(image, **options), local_entropy(image.clamp(-0.5, 0.5), **options))

    @BACKENDS
    @pytest.mark.parametrize("footprint", ["ball", "box"])
    def test_volume_of_one_slice_equals_the_image(self, footprint, backend, generator):
        image = torch.rand(2, 1, 40, 33, generator=generator)
        options = {"footprint": footprint, "radius": 5, "backend": backend}
        flat = local_entropy(image, **options)
        for axis in (2, 3, 4):
            assert torch.allclose(local_entropy(image.unsqueeze(axis), **options).squeeze(axis), flat, atol=1e-6)

    @BACKENDS
    def test_batch_equals_one_by_one(self, backend, generator):
        images = torch.rand(3, 1, 30, 30, generator=generator) * torch.tensor([1.0, 5.0, 100.0]).view(3, 1, 1, 1)
        mask = torch.rand(3, 1, 30, 30, generator=generator) < torch.tensor([0.5, 1.0, 0.0]).view(3, 1, 1, 1)
        together = local_entropy(images, mask=mask, radius=4, backend=backend)
        pairs = zip(images.split(1), mask.split(1), strict=True)
        single = [local_entropy(image, mask=kept, radius=4, backend=backend) for image, kept in pairs]
        assert torch.equal(together, torch.cat(single))
        assert (together[2] == 0).all()  # nothing counts there

    def test_moves_with_the_image(self, generator):
        image = torch.rand(1, 1, 12, 31, 20, generator=generator)
        options = {"radius": 3.0, "spacing": (1.5, 1.0, 0.7)}
        expected = local_entropy(image, **options)
        assert torch.allclose(local_entropy(image.flip(2, 4), **options).flip(2, 4), expected, atol=1e-6)
        turned = local_entropy(image.transpose(2, 4), radius=3.0, spacing=(0.7, 1.0, 1.5)).transpose(2, 4)
        assert torch.allclose(turned, expected, atol=1e-5)

    def test_unit_of_the_grey_values_does_not_matter(self, generator):
        image = torch.randint(0, 1000, (1, 1, 30, 30), generator=generator).float()
        assert torch.equal(local_entropy(image, bins=64), local_entropy(4 * image - 1024, bins=64))

    def test_radius_in_mm(self, generator):
        image = torch.rand(1, 1, 50, 50, generator=generator)
        # 100 * 0.1 is more than 10 in floating point; the pixel on the rim counts nevertheless
        for spacing in (0.1, 0.3, 0.7):
            in_mm = local_entropy(image, radius=7 * spacing, spacing=[spacing, spacing])
            assert torch.equal(in_mm, local_entropy(image, radius=7))

    def test_pixels_outside_the_mask_have_no_say(self, generator):
        image = torch.rand(1, 1, 40, 40, generator=generator)
        mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
        mask[..., 5:30, 8:] = True
        spoilt = image.masked_fill(~mask, torch.nan)
        expected = local_entropy(image[..., 5:30, 8:], radius=6)
        assert torch.allclose(local_entropy(spoilt, mask=mask, radius=6)[..., 5:30, 8:], expected, atol=1e-6)
        assert (local_entropy(spoilt, mask=mask, radius=6)[~mask] == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_number_types(self, dtype):
        image = batch(CARD["linear"][0])
        found = local_entropy(image.to(dtype), **GREY_8_BIT)
        assert found.dtype == torch.float32
        assert torch.equal(found, local_entropy(image, **GREY_8_BIT))

    def test_plain_tensor_from_an_image_with_metadata_or_gradient(self):
        image = batch(CARD["linear"][0])
        mask = torch.ones_like(image, dtype=torch.bool)
        expected = local_entropy(image)
        found = local_entropy(MetaTensor(image).requires_grad_(), mask=MetaTensor(mask))
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert torch.equal(found, expected)
        assert torch.equal(local_entropy(image.mT.contiguous().mT), expected)

    def test_without_numba(self, monkeypatch):
        image = batch(CARD["quadratic"][0])
        expected = local_entropy(image, backend="numba")
        monkeypatch.setitem(sys.modules, "numba", None)
        assert torch.allclose(local_entropy(image), expected, atol=1e-5)
        with pytest.raises(ValueError, match="backend is 'numba', which needs"):
            local_entropy(image, backend="numba")

    def test_numba_that_does_not_import(self, monkeypatch):
        """As where it was built for another numpy."""
        image = batch(CARD["quadratic"][0])
        expected = local_entropy(image, backend="torch")
        monkeypatch.delattr("medpixcl._kernels.entropy_numba", raising=False)
        monkeypatch.setitem(sys.modules, "medpixcl._kernels.entropy_numba", None)
        assert torch.equal(local_entropy(image), expected)

    @pytest.mark.gpu
    @pytest.mark.parametrize("footprint", ["ball", "box"])
    def test_gpu_equals_cpu(self, footprint, generator):
        image = torch.rand(2, 1, 20, 90, 70, generator=generator)
        options = {"radius": 4, "footprint": footprint}
        found = local_entropy(image.cuda(), **options)
        assert found.is_cuda
        assert torch.allclose(found.cpu(), local_entropy(image, **options), atol=1e-5)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"radius": -1}, "radius is -1"),
            ({"radius": math.inf}, "radius is inf"),
            ({"bins": 0}, "bins is 0"),
            ({"bins": 40000}, "bins is 40000"),
            ({"spacing": (1.0,)}, "expected 2 positive sizes in mm"),
            ({"spacing": (1.0, 0.0)}, "expected 2 positive sizes in mm"),
            ({"value_range": (5.0, 5.0)}, "low < high"),
            ({"value_range": (0.0, math.nan)}, "low < high"),
        ],
    )
    def test_bad_options(self, change, message):
        with pytest.raises(ValueError, match=message):
            local_entropy(torch.zeros(1, 1, 8, 8), **change)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("value_range", [None, (0.0, 1.0)])
    def test_pixels_that_are_not_finite(self, bad, value_range, generator):
        image = torch.rand(2, 1, 8, 8, generator=generator)
        image[1, 0, 3, 4] = bad
        mask = torch.ones_like(image, dtype=torch.bool)
        for counted in (None, mask):
            with pytest.raises(ValueError, match="NaN or infinite pixels"):
                local_entropy(image, value_range=value_range, mask=counted)
        mask[1, 0, 3, 4] = False
        assert local_entropy(image, value_range=value_range, mask=mask).isfinite().all()

    @pytest.mark.parametrize("shape", [(1, 1, 8), (1, 2, 8, 8), (1, 1, 2, 2, 2, 2)])
    def test_bad_shape(self, shape):
        with pytest.raises(ValueError, match=r"image has shape .*; expected \(B, 1, H, W\)"):
            local_entropy.__wrapped__(torch.zeros(shape))  # behind the type check of the tests

    def test_mask_of_another_shape(self):
        with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 4, 8\)"):
            local_entropy.__wrapped__(torch.zeros(1, 1, 8, 8), mask=torch.ones(1, 1, 4, 8, dtype=torch.bool))


class TestClasses:
    @pytest.mark.parametrize("shape", [(2, 1, 6, 5), (2, 1, 3, 4, 5)])
    def test_absolute_cuts(self, shape, generator):
        entropy = 7 * torch.rand(shape, generator=generator)
        entropy.view(-1)[:4] = torch.tensor([0.0, 2.0, 4.5, 7.0])
        found = classify_informativeness(entropy, cuts=(2, 4.5))
        expected = [0 if e < 2 else 1 if e < 4.5 else 2 for e in entropy.flatten().tolist()]
        assert found.shape == entropy.shape
        assert found.flatten().tolist() == expected

    def test_quantiles_of_the_foreground_of_each_image(self):
        entropy = torch.stack([torch.arange(100.0), 0.01 * torch.arange(100.0)]).view(2, 1, 10, 10)
        entropy[:, :, :2] = 0.0  # leaves 80 pixels each
        found = classify_informativeness(entropy, cuts=None, quantiles=(0.25, 0.5))
        assert torch.equal(found[0], found[1])
        bounds = np.quantile(np.arange(20, 100), [0.25, 0.5])
        assert found[0].flatten().tolist() == np.digitize(entropy[0].flatten().numpy(), bounds).tolist()

    def test_given_foreground(self, generator):
        entropy = torch.rand(1, 1, 20, 20, generator=generator)
        foreground = torch.rand(1, 1, 20, 20, generator=generator) < 0.5
        found = classify_informativeness(entropy, cuts=None, quantiles=(0.2, 0.7), foreground=foreground)
        bounds = np.quantile(entropy[foreground].numpy(), [0.2, 0.7])
        assert found.flatten().tolist() == np.digitize(entropy.flatten().numpy(), bounds).tolist()

    def test_no_foreground_is_low(self):
        assert (classify_informativeness(torch.zeros(1, 1, 4, 4), cuts=None, quantiles=(0.3, 0.6)) == 0).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cuts": None}, "exclude each other"),
            ({"quantiles": (0.2, 0.8)}, "exclude each other"),
            ({"cuts": (4.0, 2.0)}, "two ascending numbers"),
            ({"cuts": (4.0,)}, "two ascending numbers"),
            ({"cuts": None, "quantiles": (0.5, 1.5)}, "between 0 and 1"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            classify_informativeness(torch.zeros(1, 1, 4, 4), **options)


class TestWeights:
    @pytest.mark.parametrize("shape", [(3, 1, 6, 5), (3, 1, 3, 4, 5)])
    @pytest.mark.parametrize("exponent", [0.01, 0.3, 1, 2])
    def test_power_of_the_entropy(self, shape, exponent, generator):
        entropy = 6 * torch.rand(shape, generator=generator)
        entropy[:, :, 0] = 0.0
        found = sampling_weights(entropy, exponent=exponent)
        expected = entropy.double().numpy() ** exponent
        expected /= expected.reshape(3, -1).sum(1).reshape(3, *[1] * (len(shape) - 1))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
        assert (found[:, :, 0] == 0).all()

    def test_exponent_zero_is_uniform_over_all_pixels(self):
        entropy = torch.tensor([[[[0.0, 1.0], [3.0, 0.0]]]])
        assert torch.equal(sampling_weights(entropy, exponent=0), torch.full((1, 1, 2, 2), 0.25))

    def test_classes_take_their_share(self, generator):
        entropy = 6 * torch.rand(2, 1, 30, 30, generator=generator)
        classes = classify_informativeness(entropy, cuts=(1.0, 4.0))
        found = sampling_weights(entropy, class_ratios=(1, 5, 2), classes=classes)
        for image in range(2):
            shares = [found[image][classes[image] == c].sum().item() for c in range(3)]
            assert shares == pytest.approx([0.125, 0.625, 0.25], abs=1e-5)
        medium = classes == 1  # inside a class the power law stays
        ratio = found[0][medium[0]] / entropy[0][medium[0]] ** 0.3
        assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-4)

    def test_share_of_an_absent_class_goes_to_the_others(self):
        entropy = torch.tensor([[[[3.0, 3.0, 5.0, 0.0]]]])
        classes = torch.tensor([[[[1, 1, 2, 0]]]])  # the low pixel has no weight
        found = sampling_weights(entropy, class_ratios=(6, 3, 1), classes=classes)
        assert found.flatten().tolist() == pytest.approx([0.375, 0.375, 0.25, 0.0])

    def test_image_without_information_is_drawn_from_uniformly(self):
        entropy = torch.zeros(2, 1, 2, 2)
        entropy[0, 0, 0, 0] = 1.0
        found = sampling_weights(entropy)
        assert found[0].flatten().tolist() == [1.0, 0.0, 0.0, 0.0]
        assert found[1].flatten().tolist() == [0.25] * 4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"exponent": -0.1}, "exponent is -0.1"),
            ({"class_ratios": (1, 1, 1)}, "go together"),
            ({"classes": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}, "go together"),
            ({"class_ratios": (1, 1), "classes": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}, "three numbers"),
            ({"class_ratios": (0, 0, 0), "classes": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}, "not all zero"),
            ({"class_ratios": (1, -1, 1), "classes": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}, "three numbers"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            sampling_weights(torch.ones(1, 1, 4, 4), **options)
