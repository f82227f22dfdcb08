"""The fused path: what the views show, where, and with which parameters."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import ImageMetaKey

from medpixcl.coordinates import apply_affine, spatial_affine, voxel_positions
from medpixcl.transforms import RandPixelViewsd
from medpixcl.transforms.views import apply_views
from tests.geometry import SHAPES, monai_affine, oblique_affine, random_image

DIMS = pytest.mark.parametrize("dims", [2, 3])
ELASTIC = pytest.mark.parametrize("elastic_mm", [0.0, 2.0], ids=["affine", "elastic"])
VIEW = {2: (20, 18), 3: (12, 14, 10)}
SPACING = {2: np.array([0.5, 0.8]), 3: np.array([0.5, 0.8, 1.4])}  # of oblique_affine
SIDES = ("anchor", "query")


def ramps(dims: int) -> MetaTensor:
    """Image of D channels whose values are its position in mm."""
    affine = oblique_affine(dims)
    mm = apply_affine(affine, voxel_positions(SHAPES[dims]).double().flatten(0, -2))
    return MetaTensor(mm.T.float().reshape(dims, *SHAPES[dims]), affine=monai_affine(affine))


def make(dims: int, keys: Any = "image", *, seed: int = 0, **options: Any) -> RandPixelViewsd:
    transform = RandPixelViewsd(keys, view_shape=options.pop("view_shape", VIEW[dims]), **options)
    transform.set_random_state(seed)
    return transform


def affine_of(image: MetaTensor) -> torch.Tensor:
    return spatial_affine(torch.as_tensor(image.affine).double(), image.ndim - 1)


class TestViews:
    @DIMS
    @ELASTIC
    def test_images_maps_and_coordinates_stay_in_step(self, dims, elastic_mm):
        """The image is its own position in mm: the views show what their coordinate maps say."""
        depth = MetaTensor(ramps(dims).as_tensor()[:1] * 2 + 1, affine=ramps(dims).affine)
        transform = make(dims, ["image", "depth"], elastic_mm=elastic_mm, flip_probability=0.5)
        for _ in range(4):
            item = transform({"image": ramps(dims), "depth": depth, "name": "kept"})
            for side in SIDES:
                coords, shown = item[f"coords_image_{side}"].as_tensor(), item[f"image_{side}"].as_tensor()
                assert shown.shape == (dims, *VIEW[dims])
                valid = coords[-1] == 1
                assert valid.float().mean() > 0.3
                torch.testing.assert_close(shown[:, valid], coords[:-1][:, valid], rtol=0, atol=2e-3)
                exogenous = item[f"depth_{side}"].as_tensor()[0]
                torch.testing.assert_close(exogenous[valid], 2 * coords[0][valid] + 1, rtol=0, atol=4e-3)
        assert item["name"] == "kept"
        assert not {"image", "depth"} & item.keys()

    @DIMS
    @ELASTIC
    def test_affines_of_the_views(self, dims, elastic_mm):
        """Exact for the anchor, and for a query that is not deformed."""
        item = make(dims, elastic_mm=elastic_mm, flip_probability=0.5)({"image": ramps(dims)})
        for side in SIDES:
            coords = item[f"coords_image_{side}"]
            assert torch.equal(coords.affine, item[f"image_{side}"].affine)
            mm = apply_affine(affine_of(coords), voxel_positions(VIEW[dims]).double().flatten(0, -2))
            error = (coords.as_tensor()[:-1].flatten(1).T - mm).abs().max()
            if side == "query" and elastic_mm:
                assert error > 0.5
            else:
                assert error < 2e-4

    @DIMS
    def test_classes_come_from_the_nearest_voxel(self, dims):
        classes = torch.randint(0, 3, (1, *SHAPES[dims]), generator=torch.Generator().manual_seed(0))
        item = {"image": ramps(dims), "class_image": MetaTensor(classes, affine=ramps(dims).affine)}
        views = make(dims, ["image", "class_image"], nearest_keys=["class_image"], elastic_mm=2.0)(item)
        coords, shown = views["coords_image_query"].as_tensor(), views["class_image_query"].as_tensor()
        assert shown.dtype == classes.dtype
        voxel = apply_affine(torch.linalg.inv(oblique_affine(dims)), coords[:-1].flatten(1).T.double())
        clear = (coords[-1].flatten() == 1) & ((voxel - voxel.round()).abs() < 0.49).all(-1)
        index = voxel[clear].round().long()
        expected = classes[(0, *index.T)]
        assert torch.equal(shown.flatten()[clear], expected)
        assert clear.float().mean() > 0.5

    @DIMS
    def test_padding_is_zero_and_marked(self, dims):
        """An image smaller than the view."""
        image = MetaTensor(torch.full((1, *[7] * dims), 5.0), affine=monai_affine(oblique_affine(dims)))
        item = make(dims, elastic_mm=1.0)({"image": image})
        for side in SIDES:
            coords, shown = item[f"coords_image_{side}"].as_tensor(), item[f"image_{side}"].as_tensor()[0]
            assert coords.isfinite().all()
            assert shown.isfinite().all()
            voxel = apply_affine(torch.linalg.inv(oblique_affine(dims)), coords[:-1].flatten(1).T.double())
            outside = ((voxel < -1e-3) | (voxel > 6 + 1e-3)).any(-1).view(shown.shape)
            assert (coords[-1][outside] == 0).all()
            assert (shown[((voxel < -1) | (voxel > 7)).any(-1).view(shown.shape)] == 0).all()
            torch.testing.assert_close(shown[coords[-1] == 1], torch.full_like(shown[coords[-1] == 1], 5.0))
            assert 0 < coords[-1].mean() < 1

    def test_views_know_their_file(self):
        image = random_image(SHAPES[2])
        image.meta[ImageMetaKey.FILENAME_OR_OBJ] = "a.png"
        item = make(2)({"image": image})
        assert item["image_query"].meta[ImageMetaKey.FILENAME_OR_OBJ] == "a.png"


class TestParameters:
    """Many draws, read from the matrices of the views: R * (pixel * sign / scale) / spacing."""

    @staticmethod
    def drawn(dims: int, number: int = 100, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Steps in mm (D, D) and centre in voxels of the views of both sides."""
        transform, found = make(dims, **options), []
        middle = [(n - 1) / 2 for n in transform.anchor.shape]
        for _ in range(number):
            for view in transform.randomize(random_image(SHAPES[dims])):
                matrix = view.matrix.numpy()
                found.append((np.diag(SPACING[dims]) @ matrix[:dims, :dims], (matrix @ [*middle, 1])[:dims]))
        return found

    @DIMS
    @pytest.mark.parametrize("pixel_mm", [None, 0.7], ids=["own pixels", "0.7 mm"])
    def test_scale_and_pixel_size(self, dims, pixel_mm):
        pixel = SPACING[dims] if pixel_mm is None else np.full(dims, pixel_mm)
        options = {"pixel_mm": None if pixel_mm is None else pixel.tolist()}
        steps = [s for s, _ in self.drawn(dims, scale_range=(0.5, 2.0), **options)]
        scales = np.array([pixel / np.linalg.norm(step, axis=0) for step in steps])
        np.testing.assert_allclose(scales, scales[:, :1].repeat(dims, axis=1), rtol=1e-9)  # one scale for all axes
        logs = np.log2(scales[:, 0])
        assert -1 <= logs.min() < -0.9
        assert 0.9 < logs.max() <= 1
        assert abs(np.median(logs)) < 4 * np.sqrt(1 / len(logs))  # as often larger as smaller
        for step in steps:
            gram = step.T @ step
            np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)  # no shear in mm

    def test_angle_in_the_plane(self):
        steps = [s for s, _ in self.drawn(2, rotation_degrees=30.0, scale_range=(1.0, 1.0))]
        angles = np.array([np.degrees(np.arctan2(step[1, 0], step[0, 0])) for step in steps])
        assert -30 <= angles.min() < -26
        assert 26 < angles.max() <= 30

    @DIMS
    def test_no_turn(self, dims):
        for step, _ in self.drawn(dims, 5, rotation_degrees=0.0, scale_range=(1.0, 1.0)):
            np.testing.assert_allclose(step, np.diag(SPACING[dims]), atol=1e-12)

    @DIMS
    def test_mirroring_per_axis(self, dims):
        chances = [1.0, 0.0, 0.5][:dims]
        steps = [s for s, _ in self.drawn(dims, rotation_degrees=0.0, flip_probability=chances)]
        shares = np.mean([np.diag(step) < 0 for step in steps], axis=0)
        assert shares[:2].tolist() == [1.0, 0.0]
        if dims == 3:
            assert abs(shares[2] - 0.5) < 4 * np.sqrt(0.25 / len(steps))

    @DIMS
    def test_views_lie_in_the_image_and_near_each_other(self, dims):
        drawn = self.drawn(dims, shift=0.25, scale_range=(1.0, 1.0))
        centres = np.array([centre for _, centre in drawn]).reshape(-1, 2, dims)
        half = np.array(VIEW[dims]) / 2
        assert (centres >= half - 0.5 - 1e-9).all()
        assert (centres <= np.array(SHAPES[dims]) - 0.5 - half + 1e-9).all()
        apart = np.abs(centres[:, 0] - centres[:, 1]) / VIEW[dims]
        assert 0.2 < apart.max() <= 0.25 + 1e-9

    @DIMS
    def test_size_of_the_deformation(self, dims):
        """The standard deviation at the control points is that asked for, in mm along every axis."""
        transform, shifts = make(dims, elastic_mm=3.0), []
        for _ in range(30):
            anchor, query = transform.randomize(random_image(SHAPES[dims]))
            assert anchor.displacement is None
            shifts.append(query.displacement.flatten(1).numpy() * SPACING[dims][:, None])
        spread = np.concatenate(shifts, axis=1)
        count = spread.shape[1]
        assert np.abs(spread.std(axis=1) / 3.0 - 1).max() < 4 / np.sqrt(2 * count)
        assert np.abs(spread.mean(axis=1)).max() < 4 * 3.0 / np.sqrt(count)

    @DIMS
    def test_seed(self, dims):
        items = [make(dims, seed=seed, elastic_mm=1.0)({"image": ramps(dims)}) for seed in (4, 4, 5)]
        assert torch.equal(items[0]["coords_image_query"], items[1]["coords_image_query"])
        assert not torch.equal(items[0]["coords_image_query"], items[2]["coords_image_query"])

    @pytest.mark.parametrize("bad", [(0.0, 1.0), (1.5, 1.0), (-1.0, 2.0)], ids=str)
    def test_scale_range(self, bad):
        with pytest.raises(ValueError, match=r"^scale_range must be two positive ascending numbers, found"):
            RandPixelViewsd("image", (8, 8), scale_range=bad)

    def test_built_from_json(self):
        config = {"_target_": "medpixcl.transforms.RandPixelViewsd", "keys": ["image"], "view_shape": [8, 8]}
        config |= {"scale_range": [0.5, 2.0], "flip_probability": [0.0, 0.5], "pixel_mm": [0.5, 0.5]}
        transform = ConfigParser({"views": json.loads(json.dumps(config))}).get_parsed_content("views")
        assert transform({"image": random_image(SHAPES[2])})["image_anchor"].shape == (1, 8, 8)


class TestApplyViews:
    @DIMS
    @ELASTIC
    def test_the_transform_needs_no_more_than_a_part_of_the_image(self, dims, elastic_mm):
        """Its views are those of the whole image."""
        options = {"nearest_keys": ["class"], "exogenous_keys": ["depth"]}
        small = {"view_shape": [6] * dims, "elastic_mm": elastic_mm, "scale_range": (1.0, 1.5)}
        image = random_image(SHAPES[dims])
        depth = torch.rand(2, *SHAPES[dims], generator=torch.Generator().manual_seed(0))
        item = {"image": image, "class": MetaTensor(torch.arange(image.numel()).view_as(image))}
        item["depth"] = MetaTensor(depth, affine=image.affine)
        for seed in range(5):
            found = make(dims, list(item), seed=seed, **small, **options)(item)
            anchor, query = make(dims, seed=seed, **small).randomize(image)
            parameters = {"matrix_anchor": anchor.matrix[None], "matrix_query": query.matrix[None]}
            if elastic_mm:
                parameters["displacement_query"] = query.displacement[None]
            images = {key: value.as_tensor()[None] for key, value in item.items()}
            whole, affines = apply_views(images, image.affine[None], parameters, view_shape=[6] * dims, **options)
            for name, value in whole.items():
                torch.testing.assert_close(found[name].as_tensor(), value[0], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(found[name].affine, affines[name.rsplit("_", 1)[1]][0])

    @DIMS
    @ELASTIC
    def test_a_batch_equals_one_by_one(self, dims, elastic_mm):
        transform, sources = make(dims, elastic_mm=elastic_mm), [random_image(SHAPES[dims], seed=n) for n in range(3)]
        drawn = list(zip(*[transform.randomize(source) for source in sources], strict=True))
        batch = {
            f"matrix_{side}": torch.stack([v.matrix for v in views]) for side, views in zip(SIDES, drawn, strict=True)
        }
        if elastic_mm:
            batch["displacement_query"] = torch.stack([view.displacement for view in drawn[1]])
        images = torch.stack([source.as_tensor() for source in sources])
        classes = torch.randint(0, 3, images.shape, generator=torch.Generator().manual_seed(0))
        affine = torch.stack([source.affine for source in sources])
        options = {"view_shape": VIEW[dims], "nearest_keys": ["class"]}
        whole, affines = apply_views({"image": images, "class": classes}, affine, batch, **options)
        for n in range(3):
            one, its_affine = apply_views(
                {"image": images[n : n + 1], "class": classes[n : n + 1]},
                affine[n : n + 1],
                {name: value[n : n + 1] for name, value in batch.items()},
                **options,
            )
            assert one.keys() == whole.keys()
            for name in one:
                torch.testing.assert_close(whole[name][n], one[name][0], rtol=1e-5, atol=1e-5)
            for side in SIDES:
                torch.testing.assert_close(affines[side][n], its_affine[side][0])
