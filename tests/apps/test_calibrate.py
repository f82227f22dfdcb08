"""Example errors of the calibration, on embeddings whose places are known exactly, and the way through the files."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.apps.calibrate import collect_examples, detour_errors, match_image, shape_errors
from medpixcl.apps.radii import Radii, with_radii
from medpixcl.data.phantoms import write_phantoms
from medpixcl.landmarks.calibration import RadiusCalibration
from medpixcl.landmarks.geometry import transform
from medpixcl.matching import LandmarkMatcher
from tests.matching import test_pose as posed
from tests.matching.fields import WaveField, turned
from tests.tiny import MATCHING, NETWORK, medpixcl

STRIDES = [2, 4, 8]
SHAPES = {2: (80, 88), 3: (40, 44, 48)}
STEP = 0.5  # mm; half a voxel of the waves, so that voxels and mm are told apart
SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]


class Scene:
    """Images of one field, each under a similarity transform, told apart by their grey."""

    def __init__(self, dims: int, turns: list[float]) -> None:
        self.dims, self.field = dims, WaveField(dims, STRIDES)
        middle = (torch.tensor(SHAPES[dims]) - 1) / 2
        matrices = [turned(dims, degrees, 1.0 + 0.01 * number) for number, degrees in enumerate(turns)]
        self.warps = [(matrix, middle - matrix @ middle) for matrix in matrices]
        generator = torch.Generator().manual_seed(3)
        self.points = (0.35 + 0.3 * torch.rand(8, dims, generator=generator)) * (torch.tensor(SHAPES[dims]) - 1)
        self.matcher = LandmarkMatcher().fit(
            self.embed, STRIDES, self.image(0).as_tensor()[None], self.truth(0), [STEP] * dims
        )

    def image(self, number: int) -> MetaTensor:
        affine = torch.diag(torch.tensor([STEP] * 3 + [1.0], dtype=torch.float64))
        return MetaTensor(torch.full((1, *SHAPES[self.dims]), float(number)), affine=affine)

    def embed(self, picture: Tensor) -> list[Tensor]:
        matrix, shift = self.warps[int(picture.flatten()[0])]
        return self.field.levels(SHAPES[self.dims], [1.0] * self.dims, matrix, shift)

    def truth(self, number: int) -> Tensor:
        return transform(self.points, *self.warps[number])


@pytest.mark.parametrize("dims", [2, 3])
class TestExampleErrors:
    def test_images_that_match_exactly_have_small_ones(self, dims: int) -> None:
        scene = Scene(dims, [0.0, 5.0, -4.0, 7.0])
        images = (scene.image(number) for number in (1, 2, 3))
        made = collect_examples(scene.matcher, STRIDES, images)
        assert made.detour_mm.shape == made.unsure.shape == (2, 8)
        assert made.detour_mm[~made.unsure].max() < 1.0  # mm: two voxels
        truth = torch.stack([scene.truth(2), scene.truth(3)]) * STEP
        assert (made.found_mm - truth)[~made.unsure].abs().max() < 1.0

    def test_a_wrong_place_in_between_is_found_in_mm(self, dims: int) -> None:
        """What lies 6 mm off in the image between arrives 6 mm off, scaled as the second image is to the first."""
        scene = Scene(dims, [0.0, 0.0, 0.0])
        via, target = (match_image(scene.matcher, scene.image(number)) for number in (1, 2))
        via.result.voxels[:, 0] += 12  # 6 mm, all alike, so that the shape has nothing to object
        moved = detour_errors(scene.matcher, STRIDES, [via], target)
        assert moved.median().item() == pytest.approx(6 * 1.02 / 1.01, abs=0.5)

    def test_the_matcher_keeps_its_template(self, dims: int) -> None:
        scene = Scene(dims, [0.0, 5.0, -4.0])
        before = match_image(scene.matcher, scene.image(2)).result.voxels
        collect_examples(scene.matcher, STRIDES, [scene.image(1), scene.image(2)])
        assert torch.equal(match_image(scene.matcher, scene.image(2)).result.voxels, before)

    def test_missing_landmarks_are_no_examples(self, dims: int) -> None:
        scene = Scene(dims, [0.0, 5.0, -4.0])
        holes = scene.truth(0)
        holes[2] = torch.nan
        scene.matcher.fit(scene.embed, STRIDES, scene.image(0).as_tensor()[None], holes, [STEP] * dims)
        made = collect_examples(scene.matcher, STRIDES, [scene.image(1), scene.image(2)])
        assert made.detour_mm.isnan()[0].tolist() == [number == 2 for number in range(8)]


@pytest.mark.parametrize("dims", [2, 3])
def test_detours_through_images_in_any_pose(dims: int, generator: torch.Generator) -> None:
    """A matcher that turns images upright takes the images themselves, templates and targets alike."""
    embed, image = posed.embedding(dims), posed.template(dims)
    points = (0.25 + 0.5 * torch.rand(9, dims, generator=generator)) * (torch.tensor(posed.SHAPE[dims]) - 1)
    matcher = LandmarkMatcher(upright=True).fit(embed, posed.STRIDES, image, points, [1.0] * dims)
    poses = [posed.pose(dims, degrees) for degrees in (100.0, -20.0)]
    turned_images = []
    for matrix, shift, shape, spacing in poses:
        affine = torch.diag(torch.tensor([*spacing.tolist(), *[1.0] * (4 - dims)], dtype=torch.float64))
        turned_images.append(MetaTensor(posed.body(dims, spacing, shape, matrix, shift)[0], affine=affine))
    made = collect_examples(matcher, posed.STRIDES, turned_images)
    matrix, shift = poses[1][:2]
    assert (made.found_mm[0] - (points @ matrix.T + shift)).norm(dim=1).max() < 1.0
    assert made.detour_mm.shape == (1, 9)
    assert made.detour_mm.max() < 2.0  # mm: a cell


@pytest.mark.parametrize("dims", [2, 3])
class TestShapeErrors:
    def test_a_landmark_that_moved_alone_is_seen(self, dims: int, generator: torch.Generator) -> None:
        """All images show the same shape under similarity transforms; in one of them one point lies 20 mm off."""
        template = 50 * torch.rand(10, dims, generator=generator)
        template[:, 0] *= 2
        found = torch.stack(
            [template @ turned(dims, 3.0 * number, 1 + 0.01 * number).T + number for number in range(12)]
        )
        found[5, 2, 0] += 20
        errors = shape_errors(found, torch.zeros(12, 10, dtype=torch.bool), template)
        assert errors[5, 2].item() == pytest.approx(20, abs=2)
        assert errors[torch.arange(12) != 5].max() < 1.0

    def test_missing_and_few_landmarks_have_none(self, dims: int, generator: torch.Generator) -> None:
        template = 50 * torch.rand(5, dims, generator=generator)
        found = template + torch.randn(12, 5, dims, generator=generator)
        holes = found.clone()
        holes[:, 3] = torch.nan
        sure = torch.zeros(12, 5, dtype=torch.bool)
        kept = [0, 1, 2, 4]
        rest = shape_errors(found[:, kept], sure[:, kept], template[kept])
        torch.testing.assert_close(shape_errors(holes, sure, template)[:, kept], rest)
        assert shape_errors(found[:, :2], sure[:, :2], template[:2]).eq(0).all()


def write_calibration(path: Path, names: tuple[str, ...]) -> Path:
    rows = tuple(float(number + 1) for number in range(len(names)))
    made = RadiusCalibration(
        names,
        0.9,
        {"sure": rows, "unsure": (None,) * len(names)},
        {"sure": (20,) * len(names), "unsure": (0,) * len(names)},
    )
    path.write_text(made.to_json(), encoding="utf-8")
    return path


class TestRadii:
    def test_without_a_calibration_rows_stay(self) -> None:
        radii = Radii(None, ("a",))
        assert radii.of([""]) is None
        assert with_radii([{"landmark": "a", "flag": ""}], radii.of([""])) == ({"landmark": "a", "flag": ""},)
        assert radii.measure({}, None) == {}

    def test_the_last_column(self, tmp_path: Path) -> None:
        radii = Radii(str(write_calibration(tmp_path / "c.json", ("a", "b", "c"))), ("c", "a", "b"))
        rows = [{"landmark": name, "flag": flag} for name, flag in (("c", ""), ("a", "unsure"), ("b", "missing"))]
        made = with_radii(rows, radii.of(["", "unsure", "missing"]))
        assert [list(row) for row in made] == [["landmark", "flag", "radius_mm"]] * 3
        assert [row["radius_mm"] for row in made] == ["3.0000", "", ""]

    def test_share_within(self, tmp_path: Path) -> None:
        """Radii 1 and 2 mm; errors 0.5 and 3 in one image, 1.5 and 1 in the other: two of four."""
        radii = Radii(str(write_calibration(tmp_path / "c.json", ("a", "b"))), ("a", "b"))
        errors = {"one": {"a": 0.5, "b": 3.0}, "two": {"a": 1.5, "b": 1.0}}
        metrics = {"per_image": {name: {"errors_mm": row} for name, row in errors.items()}}
        facts = radii.measure({"one": ["", ""], "two": ["", ""]}, metrics)
        assert metrics["radius_coverage"] == {"target": 0.9, "measured": 0.5}
        assert facts == {"circles": "meant to hold 90 % of the true places, hold 50.0 %"}

    def test_of_other_landmarks(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="the calibration has no landmark 'x'"):
            Radii(str(write_calibration(tmp_path / "c.json", ("a",))), ("x",))


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Twelve pictures, the first of them annotated."""
    write_phantoms(tmp_path / "images", 12, (48, 48), seed=5)
    shutil.copy(tmp_path / "images" / "phantom_000.png", tmp_path / "template.png")
    table = tmp_path / "landmarks.csv"
    table.write_text(
        "image,landmark,x_px,y_px\ntemplate.png,a,12,30\ntemplate.png,b,34,22\ntemplate.png,c,25,38\n", encoding="utf-8"
    )
    return {"template": tmp_path / "template.png", "landmarks": table, "images": tmp_path / "images"}


def test_calibrate_then_match(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes a calibration that ``match`` takes; the same words twice give the same file."""
    words = [word for key, value in places.items() for word in (f"--{key}", value)]
    words += ["--bundle", MATCHING, "--spacing-mm", 0.5, *SMALL, "--set", "weights=null"]
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        torch.manual_seed(0)  # of the random weights
        assert medpixcl("calibrate", *words, "-o", file) == 0
    assert files[0].read_text() == files[1].read_text()
    made = RadiusCalibration.read(files[0])
    assert made.names == ("a", "b", "c")
    assert made.coverage == 0.9
    torch.manual_seed(0)
    assert medpixcl("match", *words, "--calibration", files[0], "-o", tmp_path / "out") == 0
    torch.manual_seed(1)
    assert medpixcl("match", *words, "--calibration", files[0], "-o", tmp_path / "other") == 2, "other weights"
    assert "was made for other weights, templates or settings; run medpixcl calibrate again" in capsys.readouterr().err
    for changed in ("mode=argmax", "working_spacing_mm=[0.6, 0.6]"):
        torch.manual_seed(0)
        assert medpixcl("match", *words, "--set", changed, "--calibration", files[0], "-o", tmp_path / "set") == 2
        assert "was made for other weights, templates or settings" in capsys.readouterr().err
    places["landmarks"].write_text(places["landmarks"].read_text().replace("a,12,30", "a,13,30"), encoding="utf-8")
    torch.manual_seed(0)
    assert medpixcl("match", *words, "--calibration", files[0], "-o", tmp_path / "other") == 2, "another template"
    with (tmp_path / "out" / "landmarks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["flag", "radius_mm"]
    for row in rows:
        radius = made.radii_mm["unsure" if row["flag"] == "unsure" else "sure"][made.names.index(row["landmark"])]
        assert row["radius_mm"] == ("" if radius is None else f"{radius:.4f}")


def test_too_few_images(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for key, value in places.items() for word in (f"--{key}", value)]
    words += ["--bundle", MATCHING, "--spacing-mm", 0.5, *SMALL, "--set", "weights=null", "--limit", 5]
    assert medpixcl("calibrate", *words, "-o", tmp_path / "none.json") == 2
    assert "a calibration needs at least 11" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
