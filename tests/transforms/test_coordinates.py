"""The open path: a coordinate map through stock MONAI transforms, against the fused path and MONAI's own affines."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAffined,
    RandAxisFlipd,
    RandFlipd,
    Randomizable,
    RandRotate90d,
    RandRotated,
    RandSpatialCropd,
    RandZoomd,
    Spacingd,
    SpatialPadd,
)

from medpixcl.coordinates import apply_affine, spatial_affine, voxel_positions
from medpixcl.correspondence.pixels import FULLY_VALID, correspond
from medpixcl.transforms import CoordinateMapd
from medpixcl.transforms.views import apply_views
from tests.geometry import SHAPES, random_image

DIMS = pytest.mark.parametrize("dims", [2, 3])
KEYS = ["image", "coords_image"]
LINEAR: dict[str, Any] = {"mode": "bilinear", "padding_mode": "zeros"}
ANGLES = {"range_x": 0.4, "range_y": 0.3, "range_z": 0.2}


def stock_transforms(dims: int) -> dict[str, Any]:
    turn, each = [0.4] * {2: 1, 3: 3}[dims], [0.2] * dims
    zoom = {"mode": "bilinear" if dims == 2 else "trilinear", "padding_mode": "constant"}
    spacing = (0.7, 0.6, 1.1)[:dims]
    return {
        "affine": RandAffined(KEYS, prob=1, rotate_range=turn, scale_range=each, shear_range=each, **LINEAR),
        "affine to another size": RandAffined(
            KEYS, (20,) * dims, prob=1, rotate_range=turn, scale_range=each, **LINEAR
        ),
        "rotate": RandRotated(KEYS, prob=1, **ANGLES, **LINEAR),
        "rotate and grow": RandRotated(KEYS, prob=1, keep_size=False, **ANGLES, **LINEAR),
        "flip": RandFlipd(KEYS, prob=1, spatial_axis=0),
        "axis flip": RandAxisFlipd(KEYS, prob=1),
        "quarter turn": RandRotate90d(KEYS, prob=1),
        "zoom": RandZoomd(KEYS, prob=1, min_zoom=0.7, max_zoom=1.4, **zoom),
        "zoom and grow": RandZoomd(KEYS, prob=1, min_zoom=1.2, max_zoom=1.6, keep_size=False, **zoom),
        "pad": SpatialPadd(KEYS, spatial_size=[60] * dims),
        "crop": RandSpatialCropd(KEYS, roi_size=[16] * dims, random_size=False),
        "spacing": Spacingd(KEYS, pixdim=spacing, **LINEAR),
        "several": Compose(
            [
                SpatialPadd(KEYS, spatial_size=[56] * dims),
                RandRotated(KEYS, prob=1, **ANGLES, **LINEAR),
                RandFlipd(KEYS, prob=1, spatial_axis=1),
                RandZoomd(KEYS, prob=1, min_zoom=0.8, max_zoom=1.2, **zoom),
                RandSpatialCropd(KEYS, roi_size=[22] * dims, random_size=False),
            ]
        ),
    }


def transformed(dims: int, name: str, *, lazy: bool, seed: int = 0) -> dict[str, Any]:
    transform = stock_transforms(dims)[name]
    parts = transform.transforms if isinstance(transform, Compose) else [transform]
    chain = Compose([CoordinateMapd("image"), *parts], lazy=lazy)
    chain.set_random_state(seed)
    return chain({"image": random_image(SHAPES[dims])})


def affine_of(image: MetaTensor) -> torch.Tensor:
    return spatial_affine(torch.as_tensor(image.affine).double(), image.ndim - 1)


def fused(dims: int, view_affine: torch.Tensor, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Image and coordinate map of the same view, made in one step."""
    source = random_image(SHAPES[dims])
    matrix = torch.linalg.inv(affine_of(source)) @ view_affine
    parameters = {"matrix_anchor": matrix[None], "matrix_query": matrix[None]}
    return apply_views({"image": source.as_tensor()[None]}, source.affine[None], parameters, view_shape=shape)[0]


class TestAgainstTheFusedPath:
    @DIMS
    @pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
    @pytest.mark.parametrize("name", stock_transforms(2))
    def test_same_positions_and_same_image(self, dims, lazy, name):
        """The positions in the map, those of MONAI's affine and those of the fused path agree; so do the pixels."""
        item = transformed(dims, name, lazy=lazy)
        image, coords = item["image"], item["coords_image"].as_tensor()
        valid = coords[-1] >= FULLY_VALID
        assert coords.isfinite().all()
        assert valid.sum() > 150

        shape = tuple(coords.shape[1:])
        mm = apply_affine(affine_of(image), voxel_positions(shape).double().flatten(0, -2))
        by_affine = mm.T.reshape(dims, *shape)
        torch.testing.assert_close(coords[:-1][:, valid].double(), by_affine[:, valid], rtol=0, atol=2e-4)

        other = fused(dims, affine_of(image), shape)
        torch.testing.assert_close(
            other["coords_image_query"][0, :-1][:, valid], coords[:-1][:, valid], rtol=0, atol=5e-4
        )
        assert (other["coords_image_query"][0, -1][valid] == 1).all()  # what is valid here is valid there
        if name != "several" or lazy:  # interpolated more than once, the pixels are smoother, not elsewhere
            torch.testing.assert_close(
                other["image_query"][0, 0][valid], image.as_tensor()[0][valid], rtol=0, atol=2e-3
            )

    @DIMS
    @pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
    def test_pairs_of_two_views(self, dims, lazy):
        """Query and anchor by chains of stock transforms: each pair at the analytic point of the anchor view."""
        query = transformed(dims, "several", lazy=lazy, seed=1)
        anchor = transformed(dims, "affine", lazy=lazy, seed=2)["image"]
        coords = query["coords_image"].as_tensor()[None]
        pixels = voxel_positions(coords.shape[2:]).flatten(0, -2)[None]
        pairs = correspond(coords, pixels, affine_of(anchor)[None], tuple(anchor.shape[1:]))
        to_anchor = torch.linalg.inv(affine_of(anchor)) @ affine_of(query["image"])
        expected = apply_affine(to_anchor, pixels[0].double())
        assert 0.05 < pairs.valid.float().mean() < 1
        error = (pairs.positive[0] - expected).abs().amax(-1)[pairs.valid[0]]
        assert error.max() <= 1e-3


class TestPadding:
    """What lies outside the image is never valid, whichever way MONAI fills it."""

    @DIMS
    @pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
    @pytest.mark.parametrize("padding_mode", ["zeros", "border"])
    @pytest.mark.parametrize("kind", [RandAffined, RandRotated])
    def test_resampling(self, dims, lazy, padding_mode, kind):
        if kind is RandAffined:
            options: dict[str, Any] = {"rotate_range": [0.4] * {2: 1, 3: 3}[dims], "translate_range": [9.0] * dims}
        else:
            options = dict(ANGLES)
        move = kind(KEYS, prob=1, mode="bilinear", padding_mode=padding_mode, **options)
        move.set_random_state(3)
        image = random_image(SHAPES[dims])
        item = Compose([CoordinateMapd("image"), move], lazy=lazy)({"image": image})
        coords = item["coords_image"].as_tensor()
        mm = apply_affine(affine_of(item["image"]), voxel_positions(coords.shape[1:]).double().flatten(0, -2))
        voxel = apply_affine(torch.linalg.inv(affine_of(image)), mm).T.reshape(dims, *coords.shape[1:])
        last = torch.tensor(SHAPES[dims]).view(-1, *[1] * dims) - 1
        padding = ((voxel < 0) | (voxel > last)).any(0)
        assert padding.float().mean() > 0.03
        assert not (coords[-1] >= FULLY_VALID)[padding].any()
        assert (coords[-1] >= FULLY_VALID).any()
        assert coords.isfinite().all()

    @DIMS
    @pytest.mark.parametrize("mode", ["constant", "edge"])
    def test_zoom_and_pad(self, dims, mode):
        linear = "bilinear" if dims == 2 else "trilinear"
        small = RandZoomd(KEYS, prob=1, min_zoom=0.6, max_zoom=0.6, mode=linear, padding_mode=mode)
        wide = SpatialPadd(KEYS, spatial_size=[60] * dims, mode=mode)
        for move in (small, wide):
            coords = move(CoordinateMapd("image")({"image": random_image(SHAPES[dims])}))["coords_image"].as_tensor()
            kept = (coords[-1] >= FULLY_VALID).nonzero()
            extent = kept.amax(0) - kept.amin(0) + 1
            assert (extent <= torch.tensor(SHAPES[dims])).all()
            mm = coords[:-1][:, coords[-1] >= FULLY_VALID].T
            assert len(mm.unique(dim=0)) == len(mm)  # a position repeated would be padding


class TestElastic:
    @DIMS
    def test_map_says_where_each_pixel_comes_from(self, dims):
        """A blob in mm, deformed by MONAI: each pixel has the value of the blob at its mapped position."""
        image = random_image(SHAPES[dims])
        affine = affine_of(image)
        centre = apply_affine(affine, torch.tensor([[n / 2 for n in SHAPES[dims]]]).double())
        mm = apply_affine(affine, voxel_positions(SHAPES[dims]).double().flatten(0, -2))
        width, spacing = 8.0, np.array([0.5, 0.8, 1.4][:dims])

        def blob(points: torch.Tensor) -> torch.Tensor:
            return torch.exp(-((points - centre) ** 2).sum(-1) / (2 * width**2))

        picture = MetaTensor(blob(mm).float().view(1, *SHAPES[dims]), affine=image.affine)
        if dims == 2:
            bend = Rand2DElasticd(KEYS, spacing=(9, 9), magnitude_range=(1, 2), prob=1, **LINEAR)
        else:
            bend = Rand3DElasticd(KEYS, sigma_range=(3, 4), magnitude_range=(60, 80), prob=1, **LINEAR)
        bend.set_random_state(0)
        item = bend(CoordinateMapd("image")({"image": picture}))
        coords, shown = item["coords_image"].as_tensor(), item["image"].as_tensor()[0]
        valid = coords[-1] >= FULLY_VALID
        bound = ((spacing / width) ** 2 / 8).sum()  # of linear interpolation
        found = blob(coords[:-1].movedim(0, -1).double().flatten(0, -2)).view(shown.shape)
        assert (found - shown)[valid].abs().max() <= bound + 1e-4
        moved = (coords[:-1] - mm.T.view(dims, *shown.shape))[:, valid].abs().amax(0)
        assert moved.mean() > 0.3  # it was deformed
        assert 0.3 < valid.float().mean() < 1


class TestMap:
    @DIMS
    def test_before_any_transform(self, dims):
        image = random_image(SHAPES[dims])
        item = CoordinateMapd("image")({"image": image})
        coords = item["coords_image"]
        assert torch.equal(torch.as_tensor(coords.affine), torch.as_tensor(image.affine))
        assert torch.equal(item["image"], image)
        for index in [(0,) * dims, (3, 7, 5)[:dims]]:
            expected = (affine_of(image).numpy() @ [*index, 1])[:-1]
            assert coords[(slice(0, dims), *index)].tolist() == pytest.approx(expected, abs=1e-4)
        inner = torch.nn.functional.pad(torch.ones([n - 2 for n in SHAPES[dims]]), [1] * 2 * dims)
        assert torch.equal(coords.as_tensor()[-1], inner)

    def test_plane_equals_volume_with_a_depth_of_one(self):
        flat = random_image((9, 11))
        affine = torch.eye(4, dtype=torch.float64)
        affine[1:3, 1:3], affine[1:3, 3] = affine_of(flat)[:2, :2], affine_of(flat)[:2, 2]
        deep = MetaTensor(flat.as_tensor()[:, None], affine=affine)
        here, there = (CoordinateMapd("image")({"image": one})["coords_image"].as_tensor() for one in (flat, deep))
        assert torch.equal(there[1:, 0], here)

    def test_missing_key(self):
        with pytest.raises(KeyError):
            CoordinateMapd("image")({})


def test_transforms_were_random():
    """The stock transforms above do move: two seeds give two maps, all but padding and resampling."""
    for name, transform in stock_transforms(2).items():
        if isinstance(transform, Randomizable):
            maps = [transformed(2, name, lazy=False, seed=seed)["coords_image"].as_tensor() for seed in range(6)]
            moved = any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairwise(maps))
            assert moved or name == "flip"
