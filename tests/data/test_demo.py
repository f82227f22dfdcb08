"""The demo's radiographs and landmarks against the CT they come from, read by other means."""

import csv
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from medpixcl.coordinates import voxel_positions, voxel_to_mm
from medpixcl.data import demo
from medpixcl.data.demo_ct import LANDMARKS, load_demo_body
from medpixcl.data.drr import ConeBeam, project_points, render_drr
from tests.data.chest import needs_ct
from tests.reference import drr as reference

SIZE = (96, 80)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoData:
    return demo.make_demo_data(tmp_path_factory.mktemp("demo"), train=2, test=2, size=SIZE)


@pytest.fixture(scope="module")
def body() -> demo.Body:
    return load_demo_body()


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
def test_landmarks_lie_where_a_marker_shows_in_the_radiograph(made: demo.DemoData, body: demo.Body) -> None:
    """A small dense ball in the CT at the landmark, bent and cast like the body, has its shadow at the landmark."""
    rows = {(row["image"], row["landmark"]): (float(row["y_px"]), float(row["x_px"])) for row in table(made.landmarks)}
    mm = voxel_to_mm(voxel_positions(body.hu.shape[2:]).flatten(0, 2).double(), body.affine)
    for name in ("aortic_arch", "T12_corner_right"):
        place = body.landmarks[list(LANDMARKS).index(name)]
        ball = (-0.5 * ((mm - place).square().sum(dim=1) / 4.0**2)).exp().view_as(body.hu).float()
        marker = demo.Body(2000 * ball - 1000, body.affine, body.landmarks)
        bodies = cache(
            lambda patient, marker=marker: marker.bent(demo.demo_patient(patient, strain=demo.STRAIN, seed=0))
        )
        for view in demo.plan_radiographs(train=2, test=2, seed=0):
            bent = bodies(view.patient)
            shadow = render_drr(bent.hu, bent.affine, geometry(), view.poses()).image[0, 0].numpy()
            np.testing.assert_allclose(rows[view.image, name], ndimage.center_of_mass(shadow), atol=0.15)


@needs_ct
def test_only_landmarks_on_the_detector_are_listed(made: demo.DemoData, body: demo.Body) -> None:
    rows = table(made.landmarks)
    assert {float(row["spacing_mm"]) for row in rows} == {demo.FIELD_MM / SIZE[0]}
    listed = {(row["image"], row["landmark"]) for row in rows}
    for view in demo.plan_radiographs(train=2, test=2, seed=0):
        patient = demo.demo_patient(view.patient, strain=demo.STRAIN, seed=0)
        for name, place in zip(LANDMARKS, patient.from_ct(body.landmarks).numpy(), strict=True):
            wanted = np.array(reference.project(place, geometry(), poses(made)[view.image]))
            assert ((view.image, name) in listed) == bool(((wanted >= 0) & (wanted <= np.array(SIZE) - 1)).all())


@needs_ct
def test_the_template_shows_all_landmarks_and_test_views_most(body: demo.Body) -> None:
    shape = ConeBeam(rows=256, columns=256, pixel_mm=demo.FIELD_MM / 256)
    seen = []
    for view in demo.plan_radiographs(train=1, test=36, seed=0):
        patient = demo.demo_patient(view.patient, strain=demo.STRAIN, seed=0)
        visible = project_points(patient.from_ct(body.landmarks), shape, view.poses()).visible[0]
        assert view.split != "template" or visible.all()
        seen.append(visible.double())
    assert torch.stack(seen).mean(dim=0).min() > 0.6


@needs_ct
def test_depth_is_the_mean_distance_of_the_matter_on_the_ray(made: demo.DemoData, body: demo.Body) -> None:
    """A ray cast sample by sample through what the view's exposure makes of the body."""
    view = demo.plan_radiographs(train=2, test=2, seed=0)[1]
    bent = body.bent(demo.demo_patient(view.patient, strain=demo.STRAIN, seed=0))
    hu = bent.hu[0, 0].numpy()
    hu = hu + (view.exposure.bone - 1) * np.clip(hu - 150, 0, None)
    depth = pixels(made.folder / "depth" / view.image)
    cast = partial(reference.cast_ray, hu, bent.affine.numpy(), geometry(), poses(made)[view.image])
    for row, column in [(48, 40), (30, 20), (70, 60)]:
        _, expected, _ = cast(row, column, water_per_mm=0.02, surface_hu=-400, step_mm=1.0)
        assert depth[row, column] == pytest.approx(expected, abs=0.7)  # half a millimetre is the rounding
    assert (depth == 0).any()


@needs_ct
def test_the_template_stands_upright(made: demo.DemoData) -> None:
    rows = {row["landmark"]: row for row in table(made.landmarks) if row["image"] == "template/template.png"}
    x, y = ({name: float(row[axis]) for name, row in rows.items()} for axis in ("x_px", "y_px"))
    assert y["apex_right"] < y["aortic_arch"] < y["dome_right"] < y["T12_corner_right"]
    assert y["T12_corner_right"] < y["L1_corner_right"]
    assert x["dome_right"] < x["T12_corner_right"] < x["T12_corner_left"] < x["heart_left"] < x["costophrenic_left"]
    grey = pixels(made.template).astype(float)
    level = {name: grey[round(y[name]), round(x[name])] for name in rows}
    assert level["T12_corner_left"] > level["apex_left"] + 50  # the spine is bright and the lung is dark


@pytest.mark.slow
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
def test_test_views_show_other_patients_turned_further_than_any_training_view(seed: int) -> None:
    views = demo.plan_radiographs(train=48, test=24, seed=seed)
    of_split = {split: [view for view in views if view.split == split] for split in ("train", "test")}
    turns = {split: [abs(view.turns_deg[2]) for view in some] for split, some in of_split.items()}
    assert max(turns["train"]) < 4 < min(turns["test"])
    assert max(turns["test"]) < 8
    for axis, largest in enumerate((4, 15)):
        assert 0.8 * largest < max(abs(view.turns_deg[axis]) for view in views) < largest
    patients = {split: {view.patient for view in some} for split, some in of_split.items()}
    assert {split: len(some) for split, some in patients.items()} == {"train": 8, "test": 4}
    assert not patients["train"] & patients["test"]
    assert views[0].turns_deg == views[0].shifts_mm == (0.0, 0.0, 0.0)
    assert views[0].patient == 0
    assert len({view.exposure for view in views}) == len(views) == 73


@needs_ct
def test_without_strain_all_views_show_the_person_of_the_ct(body: demo.Body) -> None:
    bent = body.bent(demo.demo_patient(3, strain=0.0, seed=0))
    torch.testing.assert_close(bent.hu, body.hu, atol=0.5, rtol=0)
    torch.testing.assert_close(bent.landmarks, body.landmarks)


def test_another_seed_draws_other_views() -> None:
    first, second = (demo.plan_radiographs(train=3, test=2, seed=seed)[1:] for seed in (0, 1))
    assert not {view.turns_deg for view in first} & {view.turns_deg for view in second}
    assert demo.plan_radiographs(train=9, test=9, seed=1)[1:4] == second[:3]


@pytest.mark.parametrize("counts", [(0, 1), (1, 0)])
def test_a_demo_without_views_is_refused(tmp_path, counts) -> None:
    with pytest.raises(ValueError, match="at least one view of each"):
        demo.make_demo_data(tmp_path, train=counts[0], test=counts[1])


def test_a_picture_too_small_for_a_chest_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"size is \(0, 64\)"):
        demo.make_demo_data(tmp_path, size=(0, 64))
