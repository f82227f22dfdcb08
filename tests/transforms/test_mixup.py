"""Cross-domain mix-up against the equations, the moments matched, nothing given away, the same draws everywhere."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose
from scipy.ndimage import map_coordinates

from medpixcl.data.seeded import EpochSampler, SeededDataset
from medpixcl.data.textures import ProceduralSources
from medpixcl.transforms import RandCrossDomainMixUp, RandCrossDomainMixUpd
from medpixcl.transforms.mixup import grid_opacity, mix_images, window_intensity
from medpixcl.transforms.source_matching import match_moments
from tests.reference import mixing as reference

SHAPES = {2: (24, 20), 3: (12, 10, 8)}
DIMS = pytest.mark.parametrize("dims", [2, 3])
MAPS = pytest.mark.parametrize("opacity_map", ["constant", "grid", "boxes"])


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def fixed(source: torch.Tensor, opacity: float, **options) -> RandCrossDomainMixUp:
    return RandCrossDomainMixUp([source], opacity_range=(opacity, opacity), **options).set_random_state(0)


class TestMix:
    def test_by_hand(self):
        target, source = torch.tensor([[[0, 1], [0.5, 0.25]]]), torch.tensor([[[1, 0], [0.5, 0.75]]])
        mixed = mix_images(target, source, 0.75)
        assert mixed.tolist() == [[[0.25, 0.75], [0.5, 0.375]]]
        assert (mixed - target).abs().mean().item() == 0.15625
        assert (mixed - target).square().mean().item() == 0.03515625
        assert torch.equal(mix_images(target, source, 1.0), target)
        assert torch.equal(mix_images(target, source, 0.0), source)
        assert torch.equal(mix_images(target, target, 0.25), target)
        assert torch.equal(mixed, mix_images(source, target, 0.25))

    @pytest.mark.parametrize(
        ("window", "grey", "wanted"), [((-1000, 1000), 0.52, 0.599294), ((-175, 250), 0.505882, 0.589412)]
    )
    def test_hounsfield_units(self, window, grey, wanted):
        """40 HU under a window, then 0.7 of it over the grey value 200 of 255."""
        target = window_intensity(torch.full((1, 1, 1), 40.0), window)
        assert target.item() == pytest.approx(grey, abs=1e-6)
        assert mix_images(target, torch.full((1, 1, 1), 200 / 255), 0.7).item() == pytest.approx(wanted, abs=1e-6)

    def test_the_transform_windows_before_it_mixes(self):
        source = torch.full((1, 4, 4), 200 / 255)
        found = fixed(source, 0.7, window=(-1000, 1000), match="none")(torch.full((1, 4, 4), 40.0))
        torch.testing.assert_close(found.image, torch.full((1, 4, 4), 0.599294))

    @DIMS
    @MAPS
    def test_all_of_it_against_the_equations(self, dims, opacity_map):
        """Targets of two channels with a mask; what comes back mixes to what comes back."""
        target = rand(2, *SHAPES[dims], seed=1)
        mask = rand(1, *SHAPES[dims], seed=2) > 0.4
        sources = ProceduralSources(SHAPES[dims], number=4)
        found = RandCrossDomainMixUp(sources, opacity_map=opacity_map).set_random_state(3)(target, mask)
        source, opacity = found.source.numpy(), found.opacity_map.numpy()
        assert torch.equal(found.target, target)
        assert np.allclose(found.image, reference.mixed(target.numpy(), source, opacity), atol=1e-6)
        inside = mask[0].numpy()
        raw = [sources[index].numpy() for index in range(4)]
        axes = list(np.ndindex(*[2] * dims))
        candidates = [np.flip(one, [a + 1 for a in range(dims) if flips[a]]) for one in raw for flips in axes]
        errors = [
            np.abs(reference.matched(np.repeat(one, 2, axis=0), target.numpy(), inside) - source).max()
            for one in candidates
        ]
        assert min(errors) < 1e-4
        assert (opacity[0][~inside] == 1).all()
        assert opacity[0][inside].min() >= 0.2 - 1e-6
        assert opacity[0][inside].max() <= 0.8 + 1e-6
        assert found.opacity.item() == pytest.approx(opacity[0][inside].mean(), abs=1e-6)
        assert found.foreground.item() == pytest.approx(inside.mean(), abs=1e-6)
        assert (len(np.unique(opacity[0][inside])) == 1) == (opacity_map == "constant")
        assert found.opacity.dtype == found.opacity_map.dtype == found.image.dtype == torch.float32

    def test_a_depth_of_one_changes_nothing(self):
        target, source = rand(1, 9, 8, seed=1), rand(1, 9, 8, seed=2)
        mask = rand(1, 9, 8, seed=3) > 0.3
        flat = match_moments(source, target, mask)
        torch.testing.assert_close(match_moments(source[..., None], target[..., None], mask[..., None])[..., 0], flat)
        control = np.random.default_rng(0).uniform(size=(3, 3))
        deep = grid_opacity(np.repeat(control[..., None], 2, axis=2), (9, 8, 1))
        torch.testing.assert_close(deep[..., 0], grid_opacity(control, (9, 8)))

    @DIMS
    def test_grid_against_scipy(self, dims):
        control = np.random.default_rng(1).uniform(size=(4,) * dims)
        places = np.meshgrid(*[np.linspace(0, 3, size) for size in SHAPES[dims]], indexing="ij")
        wanted = map_coordinates(control, places, order=1)
        assert np.allclose(grid_opacity(control, SHAPES[dims])[0], wanted, atol=1e-5)


class TestMoments:
    def test_by_hand(self):
        """A source of mean 0.8 and spread 0.2 under a target of 0.4 and 0.1: 1.0 becomes 0.5."""
        source, target = torch.tensor([[[0.6, 1.0]]]), torch.tensor([[[0.3, 0.5]]])
        found = match_moments(source, target, torch.ones(1, 1, 2, dtype=torch.bool))
        torch.testing.assert_close(found, torch.tensor([[[0.3, 0.5]]]))

    @DIMS
    def test_against_the_equation(self, dims):
        target, source = rand(2, *SHAPES[dims], seed=1), 3 * rand(2, *SHAPES[dims], seed=2) - 1
        mask = rand(1, *SHAPES[dims], seed=3) > 0.5
        wanted = reference.matched(source.double().numpy(), target.double().numpy(), mask[0].numpy())
        assert np.allclose(match_moments(source, target, mask), wanted, atol=1e-5)

    def test_a_flat_source_becomes_the_mean(self):
        target = rand(1, 5, 5)
        found = match_moments(torch.full((1, 5, 5), 0.3), target, torch.ones(1, 5, 5, dtype=torch.bool))
        torch.testing.assert_close(found, target.mean().expand(1, 5, 5))

    def test_the_mean_gives_nothing_away(self):
        """Unmatched, the mean of the mix is a straight line in opacity; matched, it is the target's whatever it is."""
        target, source = 0.2 * rand(1, 16, 16, seed=1), 0.8 + 0.2 * rand(1, 16, 16, seed=2)
        for opacity in (0.2, 0.5, 0.8):
            assert fixed(source, opacity)(target).image.mean().item() == pytest.approx(target.mean().item(), abs=1e-5)
            plain = fixed(source, opacity, match="none")(target).image.mean().item()
            assert plain == pytest.approx(
                opacity * target.mean().item() + (1 - opacity) * source.mean().item(), abs=1e-5
            )


class TestLeaks:
    def test_colour(self):
        """A grey target and a coloured source: R - G of the mix is 0.7 (1 - opacity) unless the source is grey."""
        target = torch.full((3, 2, 2), 0.6)
        source = torch.tensor([0.9, 0.2, 0.4]).view(3, 1, 1).expand(3, 2, 2)
        leaky = fixed(source, 0.7, match="none", grey_source=False)(target).image
        torch.testing.assert_close(leaky[:, 0, 0], torch.tensor([0.69, 0.48, 0.54]))
        tight = fixed(source, 0.7, match="none")(target).image
        torch.testing.assert_close(tight[0], tight[1])
        torch.testing.assert_close(tight[0], torch.full((2, 2), 0.7 * 0.6 + 0.3 * 0.5))

    @DIMS
    def test_air(self, dims):
        """Where the target is air the mix is (1 - opacity) times the source, unless air is left alone."""
        target = rand(1, *SHAPES[dims], seed=1) + 0.1
        target[:, : SHAPES[dims][0] // 2] = 0.0
        source = rand(1, *SHAPES[dims], seed=2)
        found = fixed(source, 0.3, foreground_threshold=0.05)(target)
        air = found.target == 0
        assert (found.image[air] == 0).all()
        assert found.foreground.item() == 0.5
        assert found.opacity.item() == pytest.approx(0.3)
        leaky = fixed(source, 0.3, foreground_threshold=0.05, mix_background=True)(target)
        torch.testing.assert_close(leaky.image[air], 0.7 * leaky.source[air])

    def test_an_image_without_foreground_gives_nothing_away(self):
        target = torch.zeros(1, 8, 8)
        for opacity in (0.2, 0.8):
            found = fixed(rand(1, 8, 8), opacity, foreground_threshold=0.05)(target)
            assert torch.equal(found.image, target)

    def test_depth_of_a_lifted_picture(self):
        """The gradient along depth is not that of the target, scaled."""
        target = rand(1, 16, 16, 12, seed=1)
        found = fixed(rand(1, 40, 40, seed=2), 0.5)(target)
        assert found.source.shape == target.shape
        assert found.source.diff(dim=3).abs().mean() > 0.3 * found.source.diff(dim=1).abs().mean()


class TestLaw:
    @pytest.mark.parametrize(
        ("options", "variance"),
        [
            ({"opacity_range": (0, 1)}, 1 / 12),
            ({}, 0.03),
            ({"opacity_range": (0, 1), "beta": 0.2}, 0.17857),
            ({"opacity_range": (0, 1), "beta": 2.0}, 0.05),
        ],
    )
    def test_mean_and_variance(self, options, variance):
        """4,000 draws: the standard error of the mean is below 0.007, that of the variance below 4 %."""
        target, source = torch.rand(1, 2, 2), torch.rand(1, 2, 2)
        mixup = RandCrossDomainMixUp([source], **options).set_random_state(0)
        drawn = torch.cat([mixup(target).opacity for _ in range(4000)]).double()
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.025)
        assert drawn.var().item() == pytest.approx(variance, rel=0.1)

    def test_crops_and_flips(self):
        """Every crop of a larger source, in every orientation, comes up."""
        source = torch.arange(6.0).view(1, 2, 3)
        mixup = RandCrossDomainMixUp([source], opacity_range=(0, 0), match="none").set_random_state(0)
        seen = {tuple(mixup(torch.zeros(1, 2, 2)).image.flatten().tolist()) for _ in range(300)}
        wanted = set()
        for start in (0, 1):
            cut = source[0, :, start : start + 2]
            for flips in ([], [0], [1], [0, 1]):
                wanted.add(tuple(cut.flip(flips).flatten().tolist()))
        assert seen == wanted


def items(number: int = 6, dims: int = 2) -> list[dict]:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    return [
        {"image": MetaTensor(rand(1, *SHAPES[dims], seed=n), affine=affine, meta={"filename_or_obj": f"{n}.png"})}
        for n in range(number)
    ]


def dataset(**options) -> SeededDataset:
    mixup = RandCrossDomainMixUpd("image", ProceduralSources(SHAPES[2]), opacity_map="grid")
    return SeededDataset(items(), Compose([mixup]), seed=5, progress=False, **options)


class TestDictionary:
    @DIMS
    def test_the_item(self, dims):
        given = items(1, dims)[0]
        before = given["image"].clone()
        mixup = RandCrossDomainMixUpd(
            "image", ProceduralSources(SHAPES[dims]), foreground_key="mask", opacity_map="boxes"
        )
        mask = rand(1, *SHAPES[dims], seed=9) > 0.5
        item = mixup.set_random_state(7)({**given, "mask": mask})
        plain = RandCrossDomainMixUp(ProceduralSources(SHAPES[dims]), opacity_map="boxes").set_random_state(7)(
            before, mask
        )
        assert torch.equal(item["image"].as_tensor(), plain.image)
        for name in ("target", "source", "opacity_map"):
            assert torch.equal(item[f"image_{name}"].as_tensor(), getattr(plain, name))
            assert torch.equal(item[f"image_{name}"].affine, before.affine)
        assert torch.equal(item["image_opacity"], plain.opacity)
        assert torch.equal(item["image_foreground"], plain.foreground)
        assert item["image"].meta["filename_or_obj"] == "0.png"
        assert torch.equal(given["image"], before)

    def test_the_same_item_from_any_worker_or_process(self):
        """Every draw follows (seed, epoch, index): workers, shards and a resume change nothing, epochs do."""
        data = dataset()
        wanted = {(epoch, index): data[epoch, index] for epoch in (1, 2) for index in range(len(data))}
        opacities = [item["image_opacity"].item() for item in wanted.values()]
        assert len(set(opacities)) == len(wanted)
        sampler = EpochSampler(data, seed=3)
        sampler.set_epoch(2)
        order = [index for _, index in sampler]
        for workers in (0, 2):
            found = list(DataLoader(data, batch_size=1, sampler=sampler, num_workers=workers))
            for index, item in zip(order, found, strict=True):
                for key in ("image", "image_source", "image_opacity", "image_opacity_map"):
                    assert torch.equal(torch.as_tensor(item[key][0]), torch.as_tensor(wanted[2, index][key]))

    def test_within_a_domain_never_with_itself(self):
        data = items(3)
        mixup = RandCrossDomainMixUpd("image", Dataset(data), match="none", opacity_range=[0, 0]).set_random_state(0)
        seen = set()
        for _ in range(60):
            mixed = mixup(data[1])["image"].as_tensor()
            flips = [mixed.flip(axes) for axes in ([], [1], [2], [1, 2])]
            seen |= {n for n, one in enumerate(data) for flip in flips if torch.equal(one["image"].as_tensor(), flip)}
        assert seen == {0, 2}
        with pytest.raises(
            ValueError, match=r"0\.png is the only image in the stream of sources; give a stream with other images"
        ):
            RandCrossDomainMixUpd("image", Dataset(data[:1]))(data[0])

    def test_windows_of_both(self):
        target, source = torch.full((1, 2, 2), 40.0), torch.full((1, 2, 2), -350.0)
        found = fixed(source, 0.5, match="none", window=(-1000, 1000), source_window=(-1000, 1000))(target)
        torch.testing.assert_close(found.image, torch.full((1, 2, 2), (0.52 + 0.325) / 2))

    def test_built_from_json(self):
        config = {
            "_target_": "medpixcl.transforms.RandCrossDomainMixUpd",
            "keys": ["image"],
            "sources": {"_target_": "medpixcl.data.ProceduralSources", "shape": [24, 20]},
            "beta": 2.0,
        }
        mixup = ConfigParser({"mix": json.loads(json.dumps(config))}).get_parsed_content("mix")
        assert mixup.set_random_state(0)(items(1)[0])["image_opacity"].shape == (1,)


class TestWhatDoesNotFit:
    def test_arguments(self):
        with pytest.raises(ValueError, match=r"the stream of sources is empty; give at least one"):
            RandCrossDomainMixUp([])
        with pytest.raises(ValueError, match=r"opacity_range is 0.8 to 0.2; expected two ascending numbers"):
            RandCrossDomainMixUp([rand(1, 2, 2)], opacity_range=(0.8, 0.2))
        with pytest.raises(ValueError, match=r"beta is -1.0; expected a number above 0"):
            RandCrossDomainMixUp([rand(1, 2, 2)], beta=-1.0)
        with pytest.raises(ValueError, match=r"opacity_map is 'patch'; expected one of constant, grid, boxes"):
            RandCrossDomainMixUp([rand(1, 2, 2)], opacity_map="patch")
        with pytest.raises(ValueError, match=r"match is 'mean'; expected one of none, moments, spectrum"):
            RandCrossDomainMixUp([rand(1, 2, 2)], match="mean")

    def test_images(self):
        broken = rand(1, 8, 8)
        broken[0, 0, :3] = torch.nan
        mixup = RandCrossDomainMixUp([rand(1, 8, 8)])
        with pytest.raises(ValueError, match=r"the image holds 3 voxels that are not finite \(NaN or Inf\); repair"):
            mixup(broken)
        with pytest.raises(ValueError, match=r"source 0 holds 3 voxels that are not finite"):
            RandCrossDomainMixUp([broken])(rand(1, 8, 8))
        with pytest.raises(ValueError, match=r"values from -1024 to 300; window intensities to about 0 to 1 before"):
            mixup(torch.linspace(-1024, 300, 64).view(1, 8, 8))

    def test_sources(self):
        with pytest.raises(
            ValueError, match=r"source 0 has shape \(8, 4\), smaller than the patch \(8, 8\); take small"
        ):
            RandCrossDomainMixUp([rand(1, 8, 4)])(rand(1, 8, 8))
        with pytest.raises(ValueError, match=r"source 0 has shape \(8, 4\), smaller than the patch \(8, 8, 8\)"):
            RandCrossDomainMixUp([rand(1, 8, 4)])(rand(1, 8, 8, 8))
        with pytest.raises(ValueError, match=r"source 0 has 3 axes and the image 2; give sources of as many"):
            RandCrossDomainMixUp([rand(1, 8, 8, 8)])(rand(1, 8, 8))
        with pytest.raises(ValueError, match=r"source 0 has 3 channels and the image 1; set grey_source"):
            RandCrossDomainMixUp([rand(3, 8, 8)], grey_source=False)(rand(1, 8, 8))


@DIMS
def test_opacities_of_given_levels_alone(dims):
    """The classes of Volume Fusion: every level comes, and nothing between them."""
    shape, levels = SHAPES[dims], [0.0, 0.25, 0.5, 0.75, 1.0]
    mixup = RandCrossDomainMixUp([rand(1, *shape)], opacity_levels=levels, opacity_map="boxes").set_random_state(0)
    seen = torch.cat([mixup(rand(1, *shape, seed=5)).opacity_map.unique() for _ in range(5)]).unique()
    assert seen.tolist() == levels
    with pytest.raises(ValueError, match=r"opacity_levels is \[0.5, 2\]; expected at least two numbers from 0 to 1"):
        RandCrossDomainMixUp([rand(1, *shape)], opacity_levels=[0.5, 2])
