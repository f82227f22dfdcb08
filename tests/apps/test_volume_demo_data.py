"""The volumes of the volume demo: their landmarks lie where the volumes themselves show them."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage, stats

from medpixcl.apps import volume_demo_data as demo
from tests.data.brain import AFFINE, PLACES, SHAPE, draw_balls, install_stand_in

GROUPS = (
    demo.QueryGroup("warped", "T1w", 3, warped=True),
    demo.QueryGroup("contrast", "T1w", 2, contrast=True),
    demo.QueryGroup("T2w", "T2w", 1),
)
WINDOW = 6
"""Voxels to each side of a landmark, 12 mm: four deviations of its ball, and no other ball."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        install_stand_in(tmp_path_factory.mktemp("site"), patch, draw_balls(), draw_balls() / 2)
        yield


@pytest.fixture(scope="module")
def made(wheel, tmp_path_factory: pytest.TempPathFactory) -> demo.VolumeDemoData:
    return demo.make_volume_demo_data(tmp_path_factory.mktemp("volumes"), groups=GROUPS)


def places_of(data: demo.VolumeDemoData) -> dict[str, dict[str, np.ndarray]]:
    """RAS+ position by image and landmark, from the table in LPS+."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with data.landmarks.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            lps = np.array([float(row[f"{axis}_mm"]) for axis in "xyz"])
            found.setdefault(row["image"], {})[row["landmark"]] = lps * [-1, -1, 1]
    return found


def ball_near(path: Path, place: np.ndarray) -> np.ndarray:
    """RAS+ centre of mass of the volume round a place."""
    image = nibabel.load(path)
    voxel = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), place)).astype(int)
    low = voxel - WINDOW
    part = image.get_fdata()[tuple(slice(start, start + 2 * WINDOW + 1) for start in low)]
    return nibabel.affines.apply_affine(image.affine, low + ndimage.center_of_mass(part))


def test_layout(made: demo.VolumeDemoData) -> None:
    names = ["warped_1", "warped_2", "warped_3", "contrast_1", "contrast_2", "T2w_1"]
    files = [f"queries/{name}.nii.gz" for name in names]
    found = sorted(path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*.*"))
    assert found == sorted(["template/T1w.nii.gz", *files, "landmarks.csv", "recipe.json", "NOTICE.txt"])
    assert [path.relative_to(made.folder).as_posix() for paths in made.queries.values() for path in paths] == files
    assert list(made.queries) == ["warped", "contrast", "T2w"]
    assert "McConnell Brain Imaging Centre" in (made.folder / "NOTICE.txt").read_text()
    for file in ("template/T1w.nii.gz", *files):
        image = nibabel.load(made.folder / file)
        assert image.shape == SHAPE
        np.testing.assert_array_equal(image.affine, AFFINE)


def test_every_landmark_lies_on_its_ball(made: demo.VolumeDemoData) -> None:
    """A bent ball of 3 mm keeps its centre of mass within a quarter of a voxel of the landmark, on any axis."""
    places = places_of(made)
    for path in (made.template, *made.queries["warped"], *made.queries["T2w"]):
        of_image = places[path.relative_to(made.folder).as_posix()]
        assert of_image.keys() == PLACES.keys()
        for name, place in of_image.items():
            np.testing.assert_allclose(ball_near(path, place), place, atol=0.5, err_msg=f"{path.name} {name}")


@pytest.mark.parametrize("axis", range(3))
def test_a_warped_volume_shows_the_landmark_s_tissue_at_the_landmark(axis: int, tmp_path, monkeypatch) -> None:
    """In a ramp along an axis, the grey value at a place says where in the template its tissue lies; 50 per voxel."""
    ramp = 50.0 * np.indices(SHAPE)[axis]
    install_stand_in(tmp_path / "site", monkeypatch, ramp, ramp)
    data = demo.make_volume_demo_data(tmp_path / "data", groups=GROUPS[:1])
    places = places_of(data)
    template = nibabel.affines.apply_affine(np.linalg.inv(AFFINE), list(PLACES.values()))
    for path in data.queries["warped"]:
        image, of_image = nibabel.load(path), list(places[f"queries/{path.name}"].values())
        voxels = nibabel.affines.apply_affine(np.linalg.inv(image.affine), of_image)
        shown = ndimage.map_coordinates(image.get_fdata(), voxels.T, order=1) / 50
        np.testing.assert_allclose(shown, template[:, axis], atol=0.02)  # the rounding to whole numbers is 0.01


def test_warps_move_and_bend_and_differ(made: demo.VolumeDemoData) -> None:
    """No similarity transform explains the places of a warped volume, and each has its own."""
    places = places_of(made)
    template = np.array(list(PLACES.values()))
    warped = [np.array(list(places[f"queries/{path.name}"].values())) for path in made.queries["warped"]]
    for one in warped:
        assert np.linalg.norm(one - template, axis=1).mean() > 2
        first, second = (points - points.mean(axis=0) for points in (template, one))
        left, stretch, right = np.linalg.svd(first.T @ second)
        turn = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
        scale = stretch.sum() / (first**2).sum()
        assert 0.85 < scale < 1.15
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 20
        rest = np.linalg.norm(scale * first @ turn - second, axis=1)
        assert 0.3 < rest.mean() < 6
    assert np.abs(warped[0] - warped[1]).max() > 2


def test_contrast_changes_the_grey_and_no_place(made: demo.VolumeDemoData) -> None:
    template = nibabel.load(made.template).get_fdata()
    bright = template > 1000
    places = places_of(made)
    for path in made.queries["contrast"]:
        volume = nibabel.load(path).get_fdata()
        assert np.abs(volume - template)[bright].mean() > 300
        assert stats.spearmanr(volume[bright], template[bright]).statistic > 0.5  # nothing is inverted
        assert 0 <= volume.min() < volume.max() <= 10_000
        of_image = places[f"queries/{path.name}"]
        np.testing.assert_allclose(list(of_image.values()), list(PLACES.values()), atol=1e-3)


def test_t2w_is_the_other_template(made: demo.VolumeDemoData) -> None:
    volume = nibabel.load(made.queries["T2w"][0]).get_fdata()
    np.testing.assert_array_equal(volume, (draw_balls() / 2).round())


def test_an_earlier_demo_is_used_again_unless_something_changed(wheel, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    groups = GROUPS[:1]

    def make(**options) -> list[float]:
        steps.clear()
        data = demo.make_volume_demo_data(tmp_path, progress=lambda *step: steps.append(step), **options)
        return [path.stat().st_mtime_ns for paths in data.queries.values() for path in paths]

    first = make(groups=groups)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    kept = (tmp_path / "queries" / "warped_1.nii.gz").read_bytes()
    assert make(groups=groups) == first
    assert steps == []
    (tmp_path / "queries" / "warped_2.nii.gz").unlink()
    make(groups=groups)
    assert len(steps) == 4
    assert (tmp_path / "queries" / "warped_1.nii.gz").read_bytes() == kept  # the same seed, the same file
    make(groups=groups, seed=1)
    assert len(steps) == 4
    assert (tmp_path / "queries" / "warped_1.nii.gz").read_bytes() != kept
    make(groups=GROUPS[2:])
    assert [path.name for path in (tmp_path / "queries").iterdir()] == ["T2w_1.nii.gz"]
