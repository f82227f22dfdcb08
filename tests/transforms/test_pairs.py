"""Pixel pairs of two views: exact, without repetition, drawn by informativeness."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.stats import chisquare

from medpixcl.coordinates import apply_affine, spatial_affine, voxel_positions
from medpixcl.transforms import PixelClasses, RandPixelPairsd, RandPixelViewsd
from tests.geometry import SHAPES, monai_affine, random_image

DIMS = pytest.mark.parametrize("dims", [2, 3])
KEYS = ["image", "entropy_image", "class_image"]


def item_of(dims: int) -> dict[str, Any]:
    image = random_image(SHAPES[dims])
    generator = torch.Generator().manual_seed(0)
    entropy = torch.rand(1, *SHAPES[dims], generator=generator) * 5
    return {
        "image": image,
        "entropy_image": MetaTensor(entropy, affine=image.affine),
        "class_image": MetaTensor((entropy > 2).long() + (entropy > 4).long(), affine=image.affine),
    }


def chain(dims: int, number: int, *, seed: int = 0, **options: Any) -> Compose:
    views = RandPixelViewsd(
        KEYS, view_shape=(18, 20, 16)[:dims], nearest_keys=["class_image"], flip_probability=0.3, **options
    )
    transform = Compose([views, RandPixelPairsd(number)])
    transform.set_random_state(seed)
    return transform


class TestPairs:
    @DIMS
    @pytest.mark.parametrize("seed", range(3))
    def test_at_the_analytic_point(self, dims, seed):
        """Affine views: pixel -> mm by the query's affine -> pixel by the inverse of the anchor's."""
        item = chain(dims, 60, seed=seed)(item_of(dims))
        affines = {
            side: spatial_affine(torch.as_tensor(item[f"image_{side}"].affine).double(), dims)
            for side in ("query", "anchor")
        }
        assert item["query"].shape == item["positive"].shape == (60, dims)
        to_anchor = torch.linalg.inv(affines["anchor"]) @ affines["query"]
        expected = apply_affine(to_anchor, item["query"].double())
        valid = item["valid"]
        assert valid.all()  # the views overlap by far more than 60 pixels
        assert (item["positive"] - expected).abs().max() <= 1e-3
        assert ((item["positive"] >= 0) & (item["positive"] <= torch.tensor((18, 20, 16)[:dims]) - 1)).all()
        assert len({tuple(pixel) for pixel in item["query"].tolist()}) == 60

    @DIMS
    def test_deformed_query_shows_the_same_anatomy(self, dims):
        """The value of the query at its pixel is that of the anchor at the partner (smooth image)."""
        item = chain(dims, 80, elastic_mm=1.5, scale_range=(1.0, 1.2))(item_of(dims))
        query = item["image_query"].as_tensor()[(0, *item["query"].long().T)]
        grid = item["positive"]
        size = torch.tensor(item["image_anchor"].shape[1:])
        place = ((2 * grid + 1) / size - 1).flip(-1).view(1, -1, *[1] * (dims - 1), dims)
        anchor = torch.nn.functional.grid_sample(item["image_anchor"].as_tensor()[None], place, align_corners=False)
        valid = item["valid"]
        assert valid.sum() > 60
        # Two linear interpolations of waves of at most 0.3 radians a voxel, steps of a view up to a voxel.
        assert (query - anchor.flatten())[valid].abs().max() <= 2 * dims * 0.3**2 / 8
        spread = item["image_query"].as_tensor().std()
        assert spread > 4 * 2 * dims * 0.3**2 / 8

    @DIMS
    def test_hardly_overlapping_views_mark_what_is_missing(self, dims):
        item = item_of(dims)
        affine = spatial_affine(item["image"].affine, dims)
        shape = (8, 8, 8)[:dims]
        shift = torch.eye(dims + 1, dtype=torch.float64)
        shift[:dims, dims] = 0.5
        shift[0, dims] = 6.5  # one layer in common
        views = {}
        for side, matrix in (("anchor", torch.eye(dims + 1, dtype=torch.float64)), ("query", shift)):
            positions = apply_affine(matrix, torch.tensor(list(np.ndindex(*shape))).double())
            mm = apply_affine(affine, positions).T.view(dims, *shape).float()
            both = {"affine": monai_affine(affine @ matrix)}
            views[f"coords_image_{side}"] = MetaTensor(torch.cat([mm, torch.ones(1, *shape)]), **both)
            for name, value in (("image", 1.0), ("entropy_image", 2.0)):
                views[f"{name}_{side}"] = MetaTensor(torch.full((1, *shape), value), **both)
        views["coords_image_query"][-1, 0, 0] = 0.5  # half padding
        number = 20
        drawn = RandPixelPairsd(number)(views)
        possible = 7 ** (dims - 1) - 7 ** (dims - 2)
        assert drawn["valid"].sum() == min(number, possible)
        assert (drawn["query"][drawn["valid"]][:, 0] == 0).all()
        assert (drawn["query"][drawn["valid"]][:, 1] != 0).all()
        assert drawn["positive"].isfinite().all()

    @DIMS
    def test_informativeness_and_class_of_the_query_pixels(self, dims):
        views = RandPixelViewsd(KEYS, view_shape=(18, 20, 16)[:dims], nearest_keys=["class_image"])
        item = Compose([views, RandPixelPairsd(40)])(item_of(dims))
        for number, pixel in enumerate(item["query"].long().tolist()):
            at = (0, *pixel)
            assert item["informativeness"][number] == item["entropy_image_query"][at]
            assert item["pixel_class"][number] == item["class_image_query"][at]
        assert item["informativeness"].shape == item["pixel_class"].shape == (40,)
        assert type(item["informativeness"]) is type(item["pixel_class"]) is torch.Tensor

    def test_seed(self):
        items = [chain(2, 20, seed=seed)(item_of(2)) for seed in (1, 1, 2)]
        assert torch.equal(items[0]["query"], items[1]["query"])
        assert not torch.equal(items[0]["query"], items[2]["query"])

    def test_plain_tensors(self):
        """Without the affine of a view: positions of two views have no common one."""
        item = chain(2, 20)(item_of(2))
        assert all(type(item[name]) is torch.Tensor for name in ("query", "positive", "valid"))


class TestDrawing:
    """One view seen twice, three classes: how often each is drawn. Few of the pixels at a time, so that those drawn
    before hardly change the odds."""

    TIMES, NUMBER = 30, 50
    DRAWS = TIMES * NUMBER
    SIDE = 80
    ENTROPY = (1.0, 2.0, 5.0)
    COUNTS = (3840, 1792, 768)

    def views(self) -> dict[str, Any]:
        order = torch.randperm(self.SIDE**2, generator=torch.Generator().manual_seed(0))
        classes = torch.repeat_interleave(torch.arange(3), torch.tensor(self.COUNTS))[order]
        classes = classes.view(1, self.SIDE, self.SIDE)
        entropy = torch.tensor(self.ENTROPY)[classes]
        positions = voxel_positions((self.SIDE, self.SIDE)).movedim(-1, 0)
        coords = torch.cat([positions, torch.ones(1, self.SIDE, self.SIDE)])
        return {
            "image_anchor": MetaTensor(entropy),
            "coords_image_query": MetaTensor(coords),
            "entropy_image_query": MetaTensor(entropy),
            "class_image_query": MetaTensor(classes),
        }

    def observed(self, **options: Any) -> list[int]:
        views, transform = self.views(), RandPixelPairsd(self.NUMBER, **options)
        transform.set_random_state(0)
        classes = views["class_image_query"].as_tensor()[0]
        found = torch.zeros(3, dtype=torch.int64)
        for _ in range(self.TIMES):
            item = transform(views)
            assert item["valid"].all()
            found += classes[tuple(item["query"].long().T)].bincount(minlength=3)
        return found.tolist()

    @pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
    def test_exponent(self, exponent):
        weights = np.array(self.COUNTS) * np.array(self.ENTROPY) ** exponent
        expected = weights / weights.sum() * self.DRAWS
        assert chisquare(self.observed(exponent=exponent), expected).pvalue > 0.01

    def test_class_ratios(self):
        ratios = np.array([0.2, 0.3, 0.5])
        assert chisquare(self.observed(classes=PixelClasses(ratios=ratios.tolist())), ratios * self.DRAWS).pvalue > 0.01

    def test_class_ratios_as_they_stand(self):
        classes = PixelClasses(ratios="loss")
        weights = np.array(self.COUNTS) * np.array(self.ENTROPY) ** 0.3
        for ratios in (None, (0.2, 0.3, 0.5), (0.6, 0.3, 0.1)):
            classes.ratios = ratios
            expected = weights / weights.sum() if ratios is None else np.array(ratios)
            assert chisquare(self.observed(classes=classes), expected * self.DRAWS).pvalue > 0.01

    def test_a_class_left_out(self):
        assert self.observed(classes=PixelClasses(ratios=[0.0, 1.0, 1.0]))[0] == 0

    def test_too_many(self):
        with pytest.raises(ValueError, match=r"^cannot draw 6401 pixels from a view of 6400: ask for fewer"):
            RandPixelPairsd(6401)(self.views())
