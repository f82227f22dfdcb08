"""Strength of the changes of intensity per class: the search, the patches it looks at, the command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from medpixcl.apps.bundles import read_bundle
from medpixcl.apps.estimate_jitter import draw_entries
from medpixcl.apps.jitter import (
    STEPS_DOWN,
    STEPS_UP,
    change_intensity,
    estimate_jitter,
    information_measure,
    jitter_fragment,
    strongest_change,
)
from medpixcl.apps.patches import (
    EmbeddedImage,
    PatchPairs,
    corresponding_patches,
    draw_image_pairs,
    embed_item,
)
from medpixcl.coordinates import image_affine
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import draw_phantom
from medpixcl.data.scan import scan
from medpixcl.networks import PixelEmbeddingNet
from medpixcl.networks.embedding import LevelsNet
from medpixcl.transforms.intensity import Intensity
from tests.reference import mutual_information as reference
from tests.tiny import NETWORK, PRETRAINING, medpixcl, write_config

SHAPES = pytest.mark.parametrize("shape", [(9, 12), (5, 6, 4)], ids=["2D", "3D"])
# Two grey levels in equal parts, 1/4 and 3/4: with four bins they stay apart until brightness 0.43, contrast 0.24,
# where (1/2 + contrast / 4) * brightness = 0.2408 joins the dark one below 1/4. Upwards they part ever more.
TWO_LEVELS = torch.tensor([0.25, 0.75]).repeat(8)
TWO_LEVELS_STEPS = (18, STEPS_UP)


class ConvolutionNet(LevelsNet):
    """Random filters at every pixel: the same surroundings get the same vector, wherever they lie."""

    strides: Sequence[int] = [1]  # type: ignore[assignment]
    coarsest_stride = 1

    def __init__(self, dims: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.filters = torch.randn(24, 1, *[5] * dims, generator=generator)
        self.dims = dims

    def levels(self, x: Tensor) -> list[Tensor]:
        conv = F.conv2d if self.dims == 2 else F.conv3d
        return [F.normalize(conv(x, self.filters, padding=2), dim=1)]


def noisy_patches(number: int, shape: Sequence[int]) -> Tensor:
    """Grey levels around 0.5, from next to none to the whole range between 0 and 1."""
    noise = np.random.default_rng(0).random((number, *shape), dtype=np.float32) - 0.5
    widths = np.linspace(0.1, 1, number, dtype=np.float32).reshape(-1, *[1] * len(shape))
    return torch.from_numpy(noise * widths + 0.5)


class TestSearch:
    @SHAPES
    def test_same_change_as_in_training(self, shape) -> None:
        patches = noisy_patches(3, shape)
        training = Intensity(brightness=1.3, contrast=0.6, gamma=1.0, noise=0.0, blur=0.0, bias=0.0, seed=0)
        expected = torch.stack([training.apply(patch[None])[0] for patch in patches])
        assert torch.allclose(change_intensity(patches, 1.3, 0.6), expected, atol=1e-6)

    @SHAPES
    @pytest.mark.parametrize("upwards", [False, True])
    @pytest.mark.parametrize("measure", ["joint", "counts"])
    def test_equals_a_literal_search(self, measure, upwards, shape) -> None:
        patches, threshold, bins = noisy_patches(20, shape), 1.0, 12
        literal = reference.joint_information if measure == "joint" else reference.count_vector_information
        sign, last = (1, STEPS_UP) if upwards else (-1, STEPS_DOWN)
        expected = []
        for patch in patches.numpy():
            kept = 0
            while kept < last:
                brightness, contrast = 1 + sign * 0.03 * (kept + 1), 1 + sign * 0.04 * (kept + 1)
                changed = np.clip(((patch - patch.mean()) * contrast + patch.mean()) * brightness, 0, 1)
                if literal(patch, changed, bins=bins, low=0, high=1) < threshold:
                    break
                kept += 1
            expected.append(kept)
        found = strongest_change(patches, threshold, information_measure(measure, bins), upwards=upwards)
        assert found.tolist() == expected
        assert len(set(expected)) > 2

    @pytest.mark.parametrize("shape", [(4, 4), (4, 2, 2)], ids=["2D", "3D"])
    def test_two_levels(self, shape) -> None:
        patch, information = TWO_LEVELS.view(1, *shape), information_measure("joint", 4)
        found = [strongest_change(patch, 0.69, information, upwards=up).item() for up in (False, True)]
        assert tuple(found) == TWO_LEVELS_STEPS
        assert strongest_change(patch, 0.70, information, upwards=False).item() == 0


def made_pairs(classes: Sequence[int]) -> PatchPairs:
    """Patches of two levels; the partner agrees in 16, 14, 12, 16, 14, ... of 16 pixels."""
    patches = TWO_LEVELS.view(1, 4, 4).repeat(len(classes), 1, 1)
    partners = patches.flatten(1).clone()
    for row in range(len(classes)):
        wrong = 2 * (row % 3)
        partners[row, :wrong] = 1 - partners[row, :wrong]
    return PatchPairs(patches, partners.view_as(patches), torch.tensor(classes), drawn=99)


class TestEstimate:
    @pytest.mark.parametrize(("stop", "alpha"), [("mean", 1.0), ("mean", 0.5), ("mean_minus_sd", 1.0)])
    def test_mean_deviation_and_threshold(self, stop, alpha) -> None:
        pairs = made_pairs([0, 1, 2] * 4 + [2, 2])
        found = estimate_jitter(pairs, information_measure("joint", 4), stop=stop, alpha=alpha)
        assert [one.name for one in found] == ["low", "medium", "high"]
        for label, one in enumerate(found):
            values = [
                reference.joint_information(pairs.patches[n].numpy(), pairs.partners[n].numpy(), bins=4, low=0, high=1)
                for n in (pairs.classes == label).nonzero().flatten()
            ]
            assert one.number == len(values)
            assert one.mean == pytest.approx(np.mean(values), abs=1e-6)
            assert one.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)
            expected = alpha * np.mean(values) - (np.std(values, ddof=1) if stop == "mean_minus_sd" else 0)
            assert one.threshold == pytest.approx(expected, abs=1e-6)

    def test_known_ranges(self) -> None:
        low, *_ = estimate_jitter(made_pairs([0, 0, 1, 1, 2, 2]), information_measure("joint", 4))
        assert low.brightness == pytest.approx((1 - 0.03 * 18, 4))
        assert low.contrast == pytest.approx((1 - 0.04 * 18, 5))
        assert low.at_limit == (0, 1)

    def test_ranges_are_means_over_the_patches(self) -> None:
        """A patch that is too poor for any change counts as unchanged."""
        pairs = made_pairs([0, 0, 1, 1, 2, 2])
        pairs.patches[1] = 0.4
        low, *_ = estimate_jitter(pairs, information_measure("joint", 4))
        assert low.threshold > 0
        assert low.brightness == pytest.approx((1 - 0.03 * 9, 2.5))

    def test_class_without_matches(self) -> None:
        with pytest.raises(ValueError, match="0 of 99 pixels drawn are of medium informativeness"):
            estimate_jitter(made_pairs([0, 0, 2, 2]), information_measure("joint"))

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="expected 'joint' or 'counts'"):
            information_measure("both")
        with pytest.raises(ValueError, match="alpha is 0"):
            estimate_jitter(made_pairs([0, 0]), information_measure("joint"), alpha=0.0)
        with pytest.raises(ValueError, match="stop is 'sd'"):
            estimate_jitter(made_pairs([0, 0]), information_measure("joint"), stop="sd")


def embedded(image: np.ndarray, network: LevelsNet, group: str) -> EmbeddedImage:
    picture = torch.from_numpy(image)[None]
    affine = image_affine((2.0, 2.0)) if image.ndim == 2 else torch.diag(torch.tensor([2.0, 2, 2, 1]))
    maps = {"entropy_image": torch.ones_like(picture), "class_image": (3 * picture).long().clamp(0, 2)}
    item = {key: MetaTensor(value, affine=affine) for key, value in ({"image": picture} | maps).items()}
    return embed_item(item, network.levels, group)


class TestCorrespondingPatches:
    @pytest.mark.parametrize(("shape", "shift"), [((40, 36), (5, -3)), ((18, 16, 17), (2, -1, 1))], ids=["2D", "3D"])
    def test_shifted_image(self, shape, shift) -> None:
        """What is found again lies where the shift put it, so that patch and partner are the same."""
        network = ConvolutionNet(len(shape))
        scene = np.random.default_rng(0).random([n + 10 for n in shape], dtype=np.float32)
        one = scene[tuple(slice(5, 5 + n) for n in shape)]
        other = scene[tuple(slice(5 + d, 5 + d + n) for n, d in zip(shape, shift, strict=True))]
        images = [embedded(one.copy(), network, "a"), embedded(other.copy(), network, "b")]
        found = corresponding_patches(
            images,
            [(0, 1), (1, 0)],
            network,
            window_mm=10.0,
            points=40,
            exponent=0.3,
            max_cycle_mm=0.5,
            generator=torch.Generator().manual_seed(0),
        )
        assert found.patches.shape[1:] == (5,) * len(shape)
        assert found.drawn == 80
        assert len(found.classes) > 20
        same = (found.patches == found.partners).flatten(1).all(1)
        assert same.double().mean() > 0.9
        assert torch.equal(found.classes, (3 * found.patches[(slice(None), *[2] * len(shape))]).long())

    def test_window_larger_than_the_image(self) -> None:
        network = ConvolutionNet(2)
        images = [embedded(np.zeros((8, 8), np.float32), network, name) for name in "ab"]
        with pytest.raises(ValueError, match="does not fit"):
            corresponding_patches(
                images, [(0, 1)], network, window_mm=30.0, points=4, exponent=0.3, generator=torch.Generator()
            )

    def test_pairs_of_images(self) -> None:
        groups = ["a", "b", "a", "c"]
        every = draw_image_pairs(groups, 99, torch.Generator().manual_seed(0))
        assert len(every) == len(set(every)) == 10
        assert all(groups[one] != groups[other] for one, other in every)
        some = draw_image_pairs(groups, 3, torch.Generator().manual_seed(0))
        assert some == draw_image_pairs(groups, 3, torch.Generator().manual_seed(0))
        assert len(some) == 3

    def test_repeats_are_one_picture(self, tmp_path) -> None:
        entries: list[dict[str, Any]] = [
            {"image": "1.png", "duplicate_group": "r"},
            {"image": "2.png", "duplicate_group": "r"},
            {"image": "3.png"},
        ]
        manifest = tmp_path / "manifest.json"
        manifest.write_text(json.dumps({"training": entries, "test": [{"image": "4.png"}]}))
        drawn = draw_entries(manifest, 9, torch.Generator())
        assert sorted(Path(entry["image"]).name for entry in drawn) == ["1.png", "3.png"]
        manifest.write_text(json.dumps({"training": entries[:2]}))
        with pytest.raises(ValueError, match=r"different pictures among the training images of .*: 1,"):
            draw_entries(manifest, 9, torch.Generator())


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four pictures of one anatomy with grey levels of their own, a small network, and its settings."""
    folder = tmp_path_factory.mktemp("jitter")
    (folder / "images").mkdir()
    base, random = draw_phantom((64, 56), 3), np.random.default_rng(0)
    for number, gamma in enumerate((0.8, 0.95, 1.1, 1.3)):
        picture = np.clip(base**gamma + random.normal(0, 0.01, base.shape), 0, 1)
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(folder / "images" / f"{number}.png")
    manifest: Manifest = scan(folder / "images", spacing_mm=1.0)
    for entry in manifest.training:
        entry.pop("duplicate_group", None)  # so much alike that they are taken for repeats
    manifest.write(folder / "manifest.json")
    torch.manual_seed(0)
    torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), folder / "weights.pt")
    return {
        "data": folder / "manifest.json",
        "weights": folder / "weights.pt",
        "config": write_config(folder / "tiny.json"),
    }


def estimate(places: dict[str, Path], output: Path, *more: object) -> int:
    words = [word for key, value in places.items() for word in (f"--{key}", value)]
    return medpixcl("estimate-jitter", "--bundle", PRETRAINING, *words, "--window-mm", 16, "-o", output, *more)


class TestCommand:
    def test_fragment_goes_into_the_pretraining(self, people, tmp_path, capsys) -> None:
        output = tmp_path / "fragment.json"
        paper = PRETRAINING / "configs" / "paper.json"
        assert estimate(people, output, "--pairs", 6, "--config", paper) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in ("low", "medium", "high", "brightness", "contrast"))
        fragment = json.loads(output.read_text())
        own = read_bundle(PRETRAINING, "train", {}, extra_configs=[paper])
        for name in ("low", "medium", "high"):
            ranges, before = fragment[f"intensity_{name}"], own[f"intensity_{name}"]
            assert ranges.keys() == before.keys()
            assert all(ranges[key] == before[key] for key in ("gamma", "noise", "blur", "bias"))
            assert all(ranges[key][0] <= 1 <= ranges[key][1] for key in ("brightness", "contrast"))
            assert fragment["jitter"][name]["pairs"] >= 2
        estimate(people, tmp_path / "again.json", "--pairs", 6, "--config", paper)
        assert (tmp_path / "again.json").read_text() == output.read_text()

        configs = ["--config", people["config"], "--config", output]
        words = ["--data", people["data"], "-o", tmp_path / "run", "--epochs", 1]
        assert medpixcl("pretrain", PRETRAINING, *words, *configs) == 0
        assert (tmp_path / "run" / "models" / "model.pt").is_file()
        used = read_bundle(PRETRAINING, "train", {}, extra_configs=[people["config"], output])
        assert used["intensity_high"] == fragment["intensity_high"]

    def test_another_seed_draws_other_pixels(self, people, tmp_path) -> None:
        for seed in (1, 2):
            assert estimate(people, tmp_path / f"{seed}.json", "--pairs", 2, "--seed", seed) == 0
        one, other = (json.loads((tmp_path / f"{seed}.json").read_text()) for seed in (1, 2))
        assert one["jitter"]["low"] != other["jitter"]["low"]

    def test_volumes_need_weights(self, people, tmp_path, capsys) -> None:
        places = {key: people[key] for key in ("data", "config")}
        assert estimate(places, tmp_path / "fragment.json", "--set", "spatial_dims=3") == 2
        assert "there is no ImageNet encoder; give a file of weights" in capsys.readouterr().err

    def test_bad_measure(self, people, tmp_path, capsys) -> None:
        assert estimate(people, tmp_path / "fragment.json", "--measure", "both") == 2
        assert "expected 'joint' or 'counts'" in capsys.readouterr().err


def test_fragment_keeps_the_other_ranges() -> None:
    found = estimate_jitter(made_pairs([0, 0, 1, 1, 2, 2]), information_measure("joint", 4))
    ranges = {one.name: {"brightness": [1, 1], "gamma": [0.5, 2]} for one in found}
    fragment = jitter_fragment(found, ranges, {"measure": "joint"})
    assert fragment["intensity_low"] == {"brightness": [0.46, 4.0], "contrast": [0.28, 5.0], "gamma": [0.5, 2]}
    assert fragment["jitter"]["measure"] == "joint"
    assert fragment["jitter"]["low"]["pairs"] == 2
