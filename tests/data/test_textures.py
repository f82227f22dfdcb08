"""Sources made by rule and read from folders: what they are, the same everywhere, no two splits alike."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from medpixcl.data.textures import (
    PictureSources,
    ProceduralSources,
    draw_texture,
    gabor_patches,
    gradient_noise,
    lift_picture,
    power_noise,
    skimage_pictures,
    two_nearest,
    warped_checkers,
    worley_cells,
)
from tests.reference import mixing as reference

KINDS = ("noise", "perlin", "cells", "gabor", "ellipsoids", "checkers")
SHAPES = {2: (48, 40), 3: (20, 16, 12)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestTextures:
    @DIMS
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind(self, kind, dims):
        first, again, other = (draw_texture(kind, SHAPES[dims], seeded(seed)) for seed in (3, 3, 4))
        assert first.shape == SHAPES[dims]
        assert first.dtype == np.float32
        assert (first.min(), first.max()) == (0.0, 1.0) or (
            kind == "ellipsoids" and 0 <= first.min() < first.max() == 1
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        for axis in range(dims):
            assert np.abs(np.diff(first, axis=axis)).mean() > 1e-3, "flat along an axis"

    @pytest.mark.parametrize("shape", [(128, 96), (40, 48, 32)])
    @pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
    def test_slope_of_the_spectrum(self, shape, beta):
        """Log power of a bin scatters by pi / sqrt(6); that leaves the slope within 0.05 for some 4,000 bins."""
        assert reference.spectral_slope(power_noise(shape, seeded(1), beta=beta)) == pytest.approx(-beta, abs=0.12)

    def test_a_depth_of_one_changes_nothing(self):
        flat = power_noise((24, 20), seeded(2))
        for shape in ((24, 20, 1), (1, 24, 20), (24, 1, 20)):
            assert np.allclose(power_noise(shape, seeded(2)).reshape(24, 20), flat, atol=1e-6)

    @pytest.mark.parametrize("shape", [(13, 9), (7, 6, 5)])
    def test_gradient_noise_against_the_equation(self, shape):
        gradients = seeded(5).standard_normal((len(shape), *[6] * len(shape)))
        origin = np.array([0.3, 0.0, 0.8])[: len(shape)]
        found = gradient_noise(shape, gradients, cell=4.0, origin=origin)
        assert np.allclose(found, reference.perlin(shape, gradients, 4.0, origin), atol=1e-12)

    def test_gradient_noise_is_zero_on_the_lattice(self):
        gradients = seeded(6).standard_normal((2, 6, 6))
        noise = gradient_noise((17, 17), gradients, cell=4.0, origin=np.zeros(2))
        assert np.abs(noise[::4, ::4]).max() < 1e-12
        assert np.abs(noise).max() > 0.1

    @DIMS
    def test_nearest_points_against_a_tree(self, dims):
        shape = SHAPES[dims]
        points = seeded(7).uniform(0, 12, (20, dims))
        first, second, nearest = two_nearest(shape, points)
        voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        distance, index = cKDTree(points).query(voxels, k=2)
        assert np.allclose(first, distance[..., 0])
        assert np.allclose(second, distance[..., 1])
        assert np.array_equal(nearest, index[..., 0])

    def test_flat_cells_have_one_value_each(self):
        assert len(np.unique(worley_cells((40, 40), seeded(8), points=9, flat=1.0))) <= 9

    @DIMS
    def test_gabor_has_its_wavelength(self, dims):
        """The strongest frequency, away from the mean, is that of the waves."""
        field = gabor_patches((64,) * dims, seeded(9), number=30, wavelength=(8.0, 8.0))
        power = np.abs(np.fft.fftn(field - field.mean())) ** 2
        axes = np.meshgrid(*[np.fft.fftfreq(64)] * dims, indexing="ij")
        frequency = np.sqrt(sum(axis**2 for axis in axes))
        assert np.average(frequency, weights=power) == pytest.approx(1 / 8, rel=0.15)

    def test_hard_straight_checkers_are_half_and_half(self):
        board = warped_checkers((200, 200), seeded(10), cell=10.0, warp=0.0, soft=0.0)
        assert set(np.unique(board)) == {0.0, 1.0}
        assert board.mean() == pytest.approx(0.5, abs=0.05)

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"no texture of kind 'wood'; the kinds are noise, perlin"):
            draw_texture("wood", (8, 8), seeded())
        with pytest.raises(ValueError, match=r"the shape of a texture is \(8,\); expected two or three positive"):
            power_noise((8,), seeded())
        with pytest.raises(ValueError, match=r"cells have 1 points; give at least 2"):
            worley_cells((8, 8), seeded(), points=1)


class TestLifting:
    def test_depth_has_gradients_too(self):
        """Along depth a lifted picture changes like in its plane, within a factor of three; a repeated one does not."""
        picture = torch.from_numpy(power_noise((64, 64), seeded(1)))[None]
        lifted = lift_picture(picture, (40, 40, 24), seeded(2))
        assert lifted.shape == (1, 40, 40, 24)
        row, column, depth = (lifted.diff(dim=axis).square().mean().sqrt().item() for axis in (1, 2, 3))
        assert 1 / 3 < depth / row < 3
        assert 1 / 3 < depth / column < 3
        assert torch.equal(lifted, lift_picture(picture, (40, 40, 24), seeded(2)))

    def test_without_a_warp_every_slice_is_the_picture(self):
        picture = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0))
        lifted = lift_picture(picture, (9, 7, 3), seeded(), warp=0.0)
        torch.testing.assert_close(lifted, picture[..., None].expand(-1, -1, -1, 3), rtol=0, atol=1e-5)

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"the picture is 4 x 9, smaller than a slice of 8 x 8; enlarge"):
            lift_picture(torch.zeros(1, 4, 9), (8, 8, 8), seeded())
        with pytest.raises(ValueError, match=r"lifted to three dimensions; the shape given is \(8, 8\)"):
            lift_picture(torch.zeros(1, 9, 9), (8, 8), seeded())


class TestProceduralSources:
    @DIMS
    def test_an_index_is_always_the_same_source(self, dims):
        first, again = (ProceduralSources(SHAPES[dims], seed=1) for _ in range(2))
        assert first[2**31 - 2].shape == (1, *SHAPES[dims])
        for index in (0, 5):
            assert torch.equal(first[index], again[index])
            assert not torch.equal(first[index], first[index + 1])
            assert not torch.equal(first[index], ProceduralSources(SHAPES[dims], seed=2)[index])

    def test_validation_shares_no_source(self):
        splits = [ProceduralSources((12, 12), split=split, number=20) for split in ("training", "validation")]
        made = [{source.numpy().tobytes() for source in (split[i] for i in range(20))} for split in splits]
        assert [len(one) for one in made] == [20, 20]
        assert not made[0] & made[1]

    def test_held_out_kinds(self):
        train = ProceduralSources((8, 8), held_out_kinds=["cells"])
        valid = ProceduralSources((8, 8), held_out_kinds=["cells"], split="validation")
        assert set(train.kinds) == set(KINDS) - {"cells"}
        assert valid.kinds == ["cells"]

    def test_a_small_number_of_sources(self):
        assert len(ProceduralSources((8, 8), number=3)) == 3
        with pytest.raises(IndexError):
            ProceduralSources((8, 8), number=3)[3]

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"no texture of kind 'wood'"):
            ProceduralSources((8, 8), kinds=["wood"])
        with pytest.raises(ValueError, match=r"split is 'test'; expected training or validation"):
            ProceduralSources((8, 8), split="test")
        with pytest.raises(ValueError, match=r"no source is left; give at least one kind that is not held out"):
            ProceduralSources((8, 8), kinds=["cells"], held_out_kinds=["cells"])


class TestPictures:
    def test_a_folder(self, tmp_path):
        for number in range(10):
            ramp = np.full((6, 8, 3), 20 * number, np.uint8)
            ramp[0, 0], ramp[1, 1] = 0, 250
            Image.fromarray(ramp).save(tmp_path / f"{number}.png")
        (tmp_path / "readme.txt").write_text("not an image")
        train, valid = (PictureSources(tmp_path, split=split) for split in ("training", "validation"))
        assert (len(train), len(valid)) == (8, 2)
        assert len({*train.images, *valid.images}) == 10
        assert len(PictureSources(tmp_path, held_out=0.0)) == 10
        number = int(train.images[3].stem)
        assert train[3].shape == (1, 6, 8)
        assert train[3][0, 3, 3].item() == pytest.approx(20 * number / 250)
        assert PictureSources(tmp_path, smallest_side=9)[0].shape == (1, 9, 12)

    def test_what_does_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match=r"holds no image to mix with; give a folder of pictures, or use Proc"):
            PictureSources(tmp_path)
        with pytest.raises(ValueError, match=r"none does not exist; expected a folder of source images"):
            PictureSources(tmp_path / "none")
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "one.png")
        with pytest.raises(ValueError, match=r"1 source image\(s\) with held_out=0.2 leave none for validation"):
            PictureSources(tmp_path, split="validation")

    def test_scikit_image(self):
        pytest.importorskip("skimage")
        sources = PictureSources(skimage_pictures(), held_out=0.0)
        assert len(sources) >= 5
        assert min(sources[0].shape[1:]) >= 300

    @pytest.mark.data
    def test_natural_pictures(self, data_dir):
        sources = PictureSources(data_dir / "natural_bsds")
        assert len(sources) > 20
        assert sorted(sources[0].shape[1:]) == [321, 481]
