"""Mutual information against its equation, scikit-image, values computed elsewhere, and what it must not depend on."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_mutual_information

from medpixcl.mutual_information import count_vector_mutual_information, joint_mutual_information
from tests.reference import mutual_information as reference

ROWS, COLUMNS = np.mgrid[:64, :64]
LINEAR = (3 * COLUMNS + 5 * ROWS) % 256
QUADRATIC = (COLUMNS**2 + 3 * ROWS**2 + COLUMNS * ROWS) % 256
GREY_8_BIT = {"bins": 256, "value_range": (0, 255)}
SHAPES = pytest.mark.parametrize("shape", [(17, 12), (6, 7, 5)], ids=["2D", "3D"])
MEASURES = pytest.mark.parametrize(
    ("measure", "literal"),
    [
        (joint_mutual_information, reference.joint_information),
        (count_vector_mutual_information, reference.count_vector_information),
    ],
    ids=["joint", "counts"],
)
BOTH = pytest.mark.parametrize("measure", [joint_mutual_information, count_vector_mutual_information])


def batch(*arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def related(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two patches that have something in common; some values lie outside 0 .. 1."""
    rng = np.random.default_rng(seed)
    first = rng.normal(0.5, 0.3, shape)
    return first, 0.6 * first + rng.normal(0.2, 0.1, shape)


class TestValues:
    """The card's values were computed with scikit-learn's ``mutual_info_score``."""

    def test_count_vectors_of_the_card(self) -> None:
        first, second = batch(LINEAR, QUADRATIC, LINEAR), batch(LINEAR, QUADRATIC, QUADRATIC)
        found = count_vector_mutual_information(first, second, **GREY_8_BIT)
        assert found.tolist() == pytest.approx([1.713174, 2.289914, 0.175173], abs=1e-6)

    def test_joint_information_of_the_card(self) -> None:
        found = joint_mutual_information(batch(LINEAR), batch(QUADRATIC), **GREY_8_BIT)
        assert found.item() == pytest.approx(2.476522, abs=1e-6)

    def test_entropy_of_the_card(self) -> None:
        """A patch tells its whole entropy about itself."""
        images = batch(4 * COLUMNS, LINEAR, QUADRATIC)
        found = joint_mutual_information(images, images, **GREY_8_BIT)
        assert found.tolist() == pytest.approx([4.158883, 5.540581, 5.132956], abs=1e-6)

    def test_by_hand(self) -> None:
        """Three quarters of the pixels of either level keep it: log 2 less the entropy of (3/4, 1/4)."""
        one = torch.tensor([[0.0, 0, 0, 0, 1, 1, 1, 1]])
        other = torch.tensor([[0.0, 0, 0, 1, 1, 1, 1, 0]])
        expected = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
        assert joint_mutual_information(one, other, bins=2).item() == pytest.approx(expected, abs=1e-7)

    @SHAPES
    @MEASURES
    @pytest.mark.parametrize("bins", [1, 5, 32])
    def test_equals_the_equation(self, measure, literal, bins, shape) -> None:
        pairs = [related(shape, seed) for seed in range(3)]
        first, second = (batch(*patches) for patches in zip(*pairs, strict=True))
        found = measure(first, second, bins=bins, value_range=(-0.1, 1.2))
        expected = [
            literal(one.numpy(), other.numpy(), bins=bins, low=-0.1, high=1.2)
            for one, other in zip(first, second, strict=True)
        ]
        assert found.shape == (3,)
        assert found.dtype == torch.float32
        assert found.tolist() == pytest.approx(expected, abs=1e-5)

    @SHAPES
    def test_equals_scikit_image(self, shape) -> None:
        """Its normalised form is (H(a) + H(b)) / H(a, b), and I = H(a) + H(b) - H(a, b)."""
        rng = np.random.default_rng(3)
        one = rng.integers(0, 8, shape)
        other = np.where(rng.random(shape) < 0.5, one, rng.integers(0, 8, shape))
        one.flat[:8], other.flat[:8] = range(8), range(8)  # both have the whole range, of which scikit-image makes bins
        options = {"bins": 8, "value_range": (0, 8)}
        joint, own, others = (
            joint_mutual_information(batch(a), batch(b), **options).item()
            for a, b in ((one, other), (one, one), (other, other))
        )
        normalised = normalized_mutual_information(one, other, bins=8)
        assert (own + others) / (own + others - joint) == pytest.approx(normalised, abs=1e-6)

    @BOTH
    def test_many_patches_at_once(self, measure) -> None:
        """More than one part is worked on."""
        first, second = (batch(*patches) for patches in zip(*[related((4, 4), s) for s in range(70)], strict=True))
        together = measure(first, second, bins=256)
        alone = torch.cat([measure(first[n : n + 1], second[n : n + 1], bins=256) for n in range(70)])
        assert torch.equal(together, alone)


class TestInvariants:
    @SHAPES
    def test_place_of_the_pixels(self, shape) -> None:
        """Pixels shuffled in both patches alike change nothing; in one of them they leave chance alone."""
        one, other = (patch[None].reshape(1, -1) for patch in related((40, *shape), 0))
        first, second = torch.from_numpy(one).float(), torch.from_numpy(other).float()
        order = torch.randperm(first.shape[1], generator=torch.Generator().manual_seed(0))
        plain = joint_mutual_information(first, second, bins=16).item()
        assert joint_mutual_information(first[:, order], second[:, order], bins=16).item() == pytest.approx(plain)
        shuffled = joint_mutual_information(first, second[:, order], bins=16).item()
        assert shuffled < 2 * 15**2 / (2 * first.shape[1]) < plain / 5

    @SHAPES
    def test_count_vectors_do_not_see_the_place(self, shape) -> None:
        first, second = (batch(patch) for patch in related(shape, 0))
        order = torch.randperm(first[0].numel(), generator=torch.Generator().manual_seed(0))
        shuffled = second.flatten(1)[:, order].view_as(second)
        assert torch.equal(
            count_vector_mutual_information(first, second), count_vector_mutual_information(first, shuffled)
        )

    @BOTH
    @SHAPES
    def test_symmetric_and_between_0_and_the_entropies(self, measure, shape) -> None:
        first, second = (batch(patch) for patch in related(shape, 1))
        there, back = measure(first, second, bins=20), measure(second, first, bins=20)
        assert torch.allclose(there, back)
        assert 0 <= there <= torch.minimum(measure(first, first, bins=20), measure(second, second, bins=20)) + 1e-6

    def test_new_names_of_the_levels(self) -> None:
        """Levels mapped one to one keep all information; levels joined lose some."""
        first, second = batch(LINEAR % 16), batch(QUADRATIC % 16)
        plain = joint_mutual_information(first, second, bins=16, value_range=(0, 16))
        renamed = joint_mutual_information((first * 5 + 3) % 16, second, bins=16, value_range=(0, 16))
        joined = joint_mutual_information((first / 2).floor(), second, bins=16, value_range=(0, 16))
        assert torch.allclose(plain, renamed)
        assert joined < plain

    def test_constant_patch_tells_nothing(self) -> None:
        noise = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
        assert joint_mutual_information(noise, torch.full_like(noise, 0.4)).tolist() == [0, 0]

    @BOTH
    def test_no_patches(self, measure) -> None:
        assert measure(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)


class TestErrors:
    @BOTH
    @pytest.mark.parametrize(
        ("first", "second", "options", "message"),
        [
            (torch.zeros(2, 4), torch.zeros(2, 5), {}, "shapes"),
            (torch.zeros(2, 0), torch.zeros(2, 0), {}, "with pixels"),
            (torch.zeros(2, 4), torch.zeros(2, 4), {"bins": 0}, "bins is 0"),
            (torch.zeros(2, 4), torch.zeros(2, 4), {"value_range": (1, 1)}, "low < high"),
            (torch.zeros(2, 4), torch.full((2, 4), math.nan), {}, "NaN"),
        ],
    )
    def test_bad_arguments(self, measure, first, second, options, message) -> None:
        with pytest.raises(ValueError, match=message):
            measure(first, second, **options)
