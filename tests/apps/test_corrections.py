"""Correct once, apply to all: from the edited files of one run to the positions, report and habit of the next."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medpixcl import Detector, Matcher, Results, read_image
from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.habits import move_landmarks
from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.landmarks.calibration import RadiusCalibration
from medpixcl.landmarks.habit import learn_habit, left_out_errors
from tests.test_same_name_detection import found_in
from tests.tiny import MATCHING, ROOT, medpixcl

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
IMAGES = [f"phantom_{number:03}" for number in range(1, 5)]
STEP = torch.tensor([2.0, -1.0], dtype=torch.float64)
"""How far the reader moves every landmark, (x, y) in mm."""


def by_name(results: Results) -> dict[str, Any]:
    return {one.image: one for one in results.landmarks}


def edit(file: Path, step: Tensor = STEP, *, only: int | None = None) -> None:
    """Move the points of a Slicer file as a reader does."""
    content = json.loads(file.read_text())
    for number, point in enumerate(content["markups"][0]["controlPoints"]):
        if only in (None, number):
            point["position"] = [point["position"][0] + float(step[0]), point["position"][1] + float(step[1]), 0.0]
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom 0 is the template; phantoms 1 to 4 are searched."""
    folder = tmp_path_factory.mktemp("clinic")
    write_landmark_phantoms(folder / "images", 5, (64, 56))
    return folder


@pytest.fixture(scope="module")
def matcher(folder: Path) -> Matcher:
    return Matcher.from_bundle(MATCHING, device="cpu").fit(
        folder / "images" / "phantom_000.png", folder / "images" / "landmarks.csv", spacing_mm=1.0
    )


@pytest.fixture(scope="module")
def match(folder: Path, matcher: Matcher) -> Callable[..., Results]:
    def run(**choices: Any) -> Results:
        return matcher.match(folder / "images", spacing_mm=1.0, **choices)

    return run


@pytest.fixture(scope="module")
def found(folder: Path, match: Callable[..., Results]) -> Results:
    """A run without corrections, written into the folder ``found``."""
    results = match()
    results.write(folder / "found", overlays=False)
    return results


@pytest.fixture
def read(folder: Path, found: Results, tmp_path: Path) -> Path:
    """Folder with the Slicer file of phantom 1, whose landmarks a reader has moved."""
    (tmp_path / "St. <b>Mary").mkdir()
    file = shutil.copy(folder / "found" / "markups" / "phantom_001.mrk.json", tmp_path / "St. <b>Mary")
    edit(Path(file))
    return tmp_path / "St. <b>Mary"


def test_one_corrected_image_moves_the_others(
    match: Callable[..., Results], folder: Path, found: Results, read: Path, tmp_path: Path
) -> None:
    results = match(corrections=read, reference=folder / "images" / "landmarks.csv")
    before, after = by_name(found), by_name(results)
    corrected = after.pop("phantom_001.png")
    torch.testing.assert_close(corrected.mm, before["phantom_001.png"].mm + STEP, rtol=0, atol=1e-3)
    assert set(corrected.flags) == {"corrected"}
    assert len(after) == 3
    for name, one in after.items():
        steps = one.mm - before[name].mm
        assert steps.mean(dim=0) @ STEP > 0.1 * STEP @ STEP, "towards the reader's"
    assert results.metrics is not None
    assert results.metrics["excluded"] == ["phantom_001.png"]
    assert results.metrics["per_image"].keys() == after.keys()
    results.write(tmp_path / "out", overlays=False)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "St. &lt;b&gt;Mary, learnt from 1 corrected image of this run" in page
    assert "without 1 corrected image of the reference" in page
    assert "<b>Mary" not in page
    assert "moved by matching again (mm)" in page


def test_the_habit_in_a_later_run(
    match: Callable[..., Results], found: Results, read: Path, tmp_path: Path, folder: Path
) -> None:
    """The same offsets for all images, the corrected one now among them; with another template there is a notice."""
    first = match(corrections=read)
    first.write(tmp_path / "better", overlays=False)
    later = match(habit=tmp_path / "better" / "habit.json")
    assert later.corrected == ()
    assert later.warnings == found.warnings
    one, before = by_name(later)["phantom_001.png"], by_name(found)["phantom_001.png"]
    assert one.flags == before.flags
    assert first.reading is not None
    torch.testing.assert_close(one.mm, first.reading.habit.apply(before.mm), rtol=0, atol=1e-6)
    for place, other in zip(later.landmarks, found.landmarks, strict=True):
        steps = place.mm - other.mm
        assert (steps @ STEP > 0.1 * STEP @ STEP).all(), "towards the reader's"
        assert (torch.linalg.vector_norm(steps, dim=1) < 0.9 * STEP.norm()).all(), "one image is no proof"
    other = Matcher.from_bundle(MATCHING, device="cpu").fit(
        folder / "images" / "phantom_002.png", folder / "images" / "landmarks.csv", spacing_mm=1.0
    )
    habit = tmp_path / "better" / "habit.json"
    results = other.match(folder / "images" / "phantom_003.png", spacing_mm=1.0, habit=habit)
    assert "was learnt with another template; an offset is the reader's less that of what found" in results.warnings[0]


def test_corrected_images_are_templates(
    match: Callable[..., Results], matcher: Matcher, folder: Path, found: Results, tmp_path: Path
) -> None:
    """The others are found as by a matcher that was given both images with their marks from the start."""
    points = found.landmarks[0].points
    corrected = replace(found.landmarks[0], points=replace(points, voxels=points.voxels + 0.5))
    found.output.into(tmp_path / "read", overlays=False).write(replace(found, landmarks=[corrected]))
    results = match(corrections=tmp_path / "read" / "landmarks.csv")
    assert results.facts["templates"] == "1 given, and 1 that the reader corrected"
    both = Matcher.from_bundle(MATCHING, device="cpu")
    both.fit([folder / "images" / "phantom_000.png", folder / "images" / "phantom_001.png"],
             [folder / "images" / "landmarks.csv", results.landmarks[0]], spacing_mm=1.0)  # fmt: skip
    expected = by_name(both.match(folder / "images", spacing_mm=1.0))
    assert expected.keys() == {"phantom_002.png", "phantom_003.png", "phantom_004.png"}
    for name, one in expected.items():
        torch.testing.assert_close(by_name(results)[name].mm, one.mm, rtol=0, atol=1e-3)
    assert matcher.files == [str(folder / "images" / "phantom_000.png")], "the matcher keeps its template"


def test_untouched_files_teach_nothing(
    match: Callable[..., Results], folder: Path, found: Results, read: Path, tmp_path: Path
) -> None:
    """The whole folder of the run, of which one file was edited: the three others are not taken for confirmed."""
    whole = tmp_path / "whole"
    shutil.copytree(folder / "found" / "markups", whole)
    shutil.copy(read / "phantom_001.mrk.json", whole)
    one, every = match(corrections=read), match(corrections=whole)
    for place, other in zip(one.landmarks, every.landmarks, strict=True):
        torch.testing.assert_close(place.mm, other.mm, rtol=0, atol=1e-6)
    assert every.warnings[-1].endswith(
        "nobody seems to have read them: 'phantom_002.png', 'phantom_003.png', 'phantom_004.png'"
    )
    shutil.copy(folder / "found" / "markups" / "phantom_001.mrk.json", whole)
    nothing = match(corrections=whole)
    assert nothing.reading is None
    assert "nothing was learnt" in nothing.warnings[-1]
    torch.testing.assert_close(nothing.landmarks[0].mm, found.landmarks[0].mm)


def test_the_folder_of_a_run(match: Callable[..., Results], folder: Path, found: Results, tmp_path: Path) -> None:
    """What was edited in it counts, in Slicer or in the table; two edits that differ are refused."""
    run = tmp_path / "run"
    shutil.copytree(folder / "found", run)
    edit(run / "markups" / "phantom_001.mrk.json", only=0)
    (run / "regions.csv").write_text((run / "landmarks.csv").read_text())
    results = match(corrections=run)
    assert results.corrected == ("phantom_001.png",)
    torch.testing.assert_close(results.landmarks[0].mm[0], found.landmarks[0].mm[0] + STEP, rtol=0, atol=1e-3)
    assert results.reading is not None
    assert results.reading.name == "run"
    lines = (run / "landmarks.csv").read_text().splitlines()
    second = next(number for number, line in enumerate(lines) if line.startswith(f"phantom_002.png,{found.names[1]},"))
    lines[second] = f"phantom_002.png,{found.names[1]},20,20,,,,"
    (run / "landmarks.csv").write_text("\n".join(lines))
    results = match(corrections=run)
    assert results.corrected == ("phantom_001.png", "phantom_002.png")
    assert results.landmarks[1].px[1].tolist() == [20.0, 20.0]
    edit(run / "markups" / "phantom_002.mrk.json", only=1)
    results = match(corrections=run)
    assert results.corrected == ("phantom_001.png",)
    assert any(f"have {found.names[1]!r} at different places" in note for note in results.warnings)


def test_notes_stay_with_a_second_finder(matcher: Matcher, folder: Path, found: Results, read: Path) -> None:
    """What is said about the corrections does not get lost when the mean of two finders is taken."""
    shutil.copy(folder / "found" / "markups" / "phantom_002.mrk.json", read)
    second = Matcher.from_bundle(MATCHING, device="cpu").fit(
        folder / "images" / "phantom_000.png", folder / "images" / "landmarks.csv", spacing_mm=1.0
    )
    results = matcher.run(folder / "images", spacing_mm=1.0, exclude=matcher.files, second=second, corrections=read)
    assert results.corrected == ("phantom_001.png",)
    assert any("nobody seems to have read them: 'phantom_002.png'" in text for text in results.warnings)


def test_some_landmarks_of_an_image(match: Callable[..., Results], found: Results, tmp_path: Path) -> None:
    """A reader who marks one landmark in a table moves that one; the file in pixels has the image's pixel size."""
    name, place = found.names[2], found.landmarks[0].px[2] + STEP
    table = tmp_path / "read.csv"
    table.write_text(f"image,landmark,x_px,y_px\nphantom_001.png,{name},{place[0]},{place[1]}\nelse.png,{name},1,1\n")
    results = match(corrections=table)
    assert results.landmarks[0].flags == (*found.landmarks[0].flags[:2], "corrected", found.landmarks[0].flags[3])
    assert results.reading is not None
    assert results.reading.habit.corrections == (0, 0, 1, 0)
    kept = [0, 1, 3]
    torch.testing.assert_close(results.landmarks[0].mm[kept], found.landmarks[0].mm[kept], rtol=0, atol=1e-6)
    for one, other in zip(results.landmarks, found.landmarks, strict=True):
        assert (one.mm - other.mm)[2].norm() > 0.1
    assert results.warnings[-1] == "the corrections also hold images that are not searched: 'else.png'"


def test_regions_end_where_a_reader_places_a_landmark(found: Results) -> None:
    first = replace(found.landmarks[0], regions_mm2=torch.eye(2).double().expand(4, 2, 2))
    results = replace(found, landmarks=[first], facts={}, notes=[])
    places = first.mm + STEP
    places[1:] = torch.nan
    habit = learn_habit(found.names, first.mm[None], places[None])
    move_landmarks(results, ReadingHabit("clinic", habit, 1, {}), {first.image: places})
    regions = results.landmarks[0].regions_mm2
    assert regions is not None
    assert regions.isnan().flatten(1).all(dim=1).tolist() == [True, False, False, False]


def test_corrections_change_the_size_of_regions(matcher: Matcher, folder: Path, found: Results, tmp_path: Path) -> None:
    """Radii of 0.1 mm hold nothing; after three corrected images they fit, in every file and in the next run."""
    names, tiny = found.names, (0.1,) * 4
    calibration, read = tmp_path / "tiny.json", tmp_path / "read"
    radii = {"sure": tiny, "unsure": tiny}
    examples = {"sure": (9,) * 4, "unsure": (9,) * 4}
    made = RadiusCalibration(names, 0.75, radii, examples, made_for=matcher.digest)
    calibration.write_text(made.to_json())
    shutil.copytree(folder / "found" / "markups", read)
    (read / "phantom_004.mrk.json").unlink()
    for number in (1, 2, 3):
        edit(read / f"phantom_00{number}.mrk.json", STEP * number)
    choices: dict[str, Any] = {"spacing_mm": 1.0, "calibration": calibration}
    results = matcher.match(folder / "images", corrections=read, **choices)
    before = torch.stack([one.mm for one in found.landmarks[:3]])
    left = left_out_errors(before, before + STEP * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    # The tenth of the twelve errors holds three quarters: ceil(13 * 0.75).
    expected = float(torch.linalg.vector_norm(left, dim=2).flatten().sort().values[9])
    last = results.landmarks[-1]
    assert last.radii_mm is not None
    torch.testing.assert_close(last.radii_mm, torch.full((4,), expected).double(), rtol=0, atol=2e-3)
    assert [row["radius_mm"] for row in last.extras] == [f"{radius:.4f}" for radius in last.radii_mm.tolist()]
    assert all(one.radii_mm is not None and one.radii_mm.isnan().all() for one in results.landmarks[:3])
    assert results.facts["size of the circles"].endswith("which the 3 corrected images ask for")
    results.write(tmp_path / "out", overlays=False)
    kept = RadiusCalibration.read(tmp_path / "out" / "radius_calibration.json")
    assert kept.radii_mm["sure"] == pytest.approx(last.radii_mm.tolist())
    later = {**choices, "calibration": tmp_path / "out" / "radius_calibration.json"}
    again = matcher.match(folder / "images", habit=tmp_path / "out" / "habit.json", **later)
    assert again.landmarks[0].radii_mm is not None
    torch.testing.assert_close(again.landmarks[0].radii_mm, last.radii_mm)
    with pytest.raises(ValueError, match=r"radius_calibration\.json lies in the folder of the results"):
        again.write(tmp_path / "out")
    (read / "phantom_003.mrk.json").unlink()
    few = matcher.match(folder / "images", corrections=read, **choices)
    assert few.stretch is None
    assert few.landmarks[-1].extras[0]["radius_mm"] == "0.1000", "two images do not tell the size"
    assert "in 2 corrected images 8 of 8 landmarks were moved; correct all landmarks of at least 3" in few.warnings[-1]


def test_landmarks_left_in_place_do_not_tell_the_size(
    matcher: Matcher, folder: Path, found: Results, tmp_path: Path
) -> None:
    """Of all files one point was moved: the others say nothing of how far off they are, and radii stay as they were."""
    radii = {"sure": (3.0,) * 4, "unsure": (3.0,) * 4}
    made = RadiusCalibration(found.names, 0.75, radii, dict.fromkeys(radii, (9,) * 4), made_for=matcher.digest)
    (tmp_path / "radii.json").write_text(made.to_json())
    shutil.copytree(folder / "found" / "markups", tmp_path / "read")
    for file in (tmp_path / "read").iterdir():
        edit(file, only=1)
    results = matcher.match(
        folder / "images", spacing_mm=1.0, calibration=tmp_path / "radii.json", corrections=tmp_path / "read"
    )
    assert len(results.corrected) == 4
    assert results.stretch is None
    assert "in 4 corrected images 4 of 16 landmarks were moved" in results.warnings[-1]
    assert not (tmp_path / "out" / "radius_calibration.json").exists()


def test_all_measured_images_were_corrected(
    match: Callable[..., Results], folder: Path, read: Path, tmp_path: Path
) -> None:
    lines = (folder / "images" / "landmarks.csv").read_text().splitlines()
    reference = tmp_path / "reference.csv"
    reference.write_text("\n".join([lines[0], *(line for line in lines if "phantom_001" in line), ""]))
    results = match(corrections=read, reference=reference)
    assert results.metrics is None
    assert results.warnings[-1].startswith("no error is measured")


def test_two_images_of_one_name(matcher: Matcher, folder: Path, found: Results, read: Path, tmp_path: Path) -> None:
    """The corrections of p1 are those of p1; a bare name that fits both is refused."""
    for patient, number in (("p1", 1), ("p2", 2)):
        (tmp_path / "images" / patient).mkdir(parents=True)
        shutil.copy(folder / "images" / f"phantom_00{number}.png", tmp_path / "images" / patient / "ceph.png")
    (tmp_path / "read" / "p1").mkdir(parents=True)
    file = shutil.copy(read / "phantom_001.mrk.json", tmp_path / "read" / "p1" / "ceph.mrk.json")
    results = matcher.match(tmp_path / "images", spacing_mm=1.0, corrections=tmp_path / "read")
    assert results.corrected == ("p1/ceph.png",)
    assert results.reading is not None
    assert results.reading.name == "read"
    alone = matcher.match(tmp_path / "images" / "p1", spacing_mm=1.0, corrections=file)
    assert alone.reading is not None
    assert alone.reading.name == "corrections", "the file bears the name of an image, which may be a patient's"
    torch.testing.assert_close(results.landmarks[0].mm, found.landmarks[0].mm + STEP, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="'ceph' stands for 2 predicted and 1 reference images"):
        matcher.match(tmp_path / "images", spacing_mm=1.0, corrections=file)


def test_a_place_outside_of_the_image(match: Callable[..., Results], found: Results, read: Path) -> None:
    """One bad file does not end the work; a moved landmark never leaves its image."""
    shutil.copy(read / "phantom_001.mrk.json", read / "phantom_002.mrk.json")
    edit(read / "phantom_002.mrk.json", torch.tensor([500.0, 0.0]))
    shutil.copy(read / "phantom_001.mrk.json", read / "phantom_003.mrk.json")
    edit(read / "phantom_003.mrk.json", torch.tensor([torch.nan, 0.0]))
    results = match(corrections=read)
    assert results.corrected == ("phantom_001.png",)
    assert any("not used" in note and "phantom_003.mrk.json: point 1" in note for note in results.warnings)
    assert any("phantom_002.png are not used" in note and "outside the image" in note for note in results.warnings)
    assert results.reading is not None
    far = replace(results.reading, habit=replace(results.reading.habit, offsets_mm=torch.full((4, 2), 10.0).double()))
    far.write(read / "far.json")
    for one, first in zip(match(habit=read / "far.json").landmarks, found.landmarks, strict=True):
        moved = far.habit.apply(first.mm).flip(1)  # pixels of 1 mm: x, y to row, column
        torch.testing.assert_close(one.voxels, moved.minimum(torch.tensor([63.5, 55.5]).double()), rtol=0, atol=1e-6)


def test_the_output_of_a_run_with_corrections(match: Callable[..., Results], read: Path, tmp_path: Path) -> None:
    """Given as it is, its corrected image alone counts; it may not be written over."""
    first = match(corrections=read)
    first.write(tmp_path / "better", overlays=False)
    for written in ("markups", "landmarks.csv", "landmarks.json"):
        if written == "landmarks.json":
            first.write(tmp_path / "better", ["json"], overlays=False)
        again = match(corrections=tmp_path / "better" / written)
        assert again.corrected == ("phantom_001.png",), written
        for one, other in zip(again.landmarks, first.landmarks, strict=True):
            torch.testing.assert_close(one.mm, other.mm, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match=r"lie in the folder of the results, .* which would overwrite them"):
        match(corrections=tmp_path / "better" / "markups", output=first.output.into(tmp_path / "better"))


def test_images_in_memory_and_a_detector(folder: Path, tmp_path: Path) -> None:
    image = read_image(folder / "images" / "phantom_001.png", spacing_mm=1.0)
    detector = Detector.from_bundle(ROOT / "bundles" / "cephalometric_landmark_detection", device="cpu")
    found = detector.detect({"a": image, "b": image})
    place = found.landmarks[0].px[0] + 1
    (tmp_path / "read.csv").write_text(f"image,landmark,x_px,y_px\na,{found.names[0]},{place[0]},{place[1]}\n")
    results = detector.detect({"a": image, "b": image}, corrections=tmp_path / "read.csv")
    step = results.landmarks[1].mm - found.landmarks[1].mm
    assert 0.1 < step[0].norm() < 2**0.5
    assert step[1:].nan_to_num(0).abs().max() < 1e-6, "what lies outside of the image is missing in both"
    assert results.reading is not None
    assert results.reading.found_by.keys() == {"finder", "bundle", "weights"}
    results.report(tmp_path / "report.html")
    assert "moved by the offset (mm)" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.write_text("{"), "something else than JSON"),
        (lambda file: file.unlink(), "there is no reading habit at"),
        (lambda file: _change(file, name=3), "name: 3 is not of type 'string'"),
        (lambda file: _change(file, run="$import('os')"), "'run' was unexpected"),
        (lambda file: _change_first(file, offset_mm=[1, float("inf")]), "a number that is not finite"),
        (lambda file: _change_first(file, offset_mm=[1, 2, 3]), "two and three axes"),
        (lambda file: _change_first(file, landmark="L2"), "has one twice"),
        (lambda file: _change_first(file, offset_mm=[900, 0]), "by 900 mm, more than the size of the whole shape"),
    ],
)
def test_bad_habits(
    change: Callable[[Path], object], words: str, match: Callable[..., Results], found: Results, tmp_path: Path
) -> None:
    file = tmp_path / "habit.json"
    _habit().write(file)
    change(file)
    with pytest.raises(ValueError, match="habit") as error:
        match(habit=file)
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_what_belongs_to_another_run(match: Callable[..., Results], found: Results, tmp_path: Path) -> None:
    table, habit = tmp_path / "read.csv", tmp_path / "habit.json"
    table.write_text(f"image,landmark,x_px,y_px\nelse.png,{found.names[0]},1,1\n")
    with pytest.raises(ValueError, match=r"corrects .else\.png., and none of these is among the images"):
        match(corrections=table)
    table.write_text("image,landmark,x_px,y_px\nphantom_001.png,porion,1,1\n")
    with pytest.raises(ValueError, match="has the landmarks 'porion', and this run finds"):
        match(corrections=table)
    _habit().write(habit)
    with pytest.raises(ValueError, match="has the landmarks 'L1', 'L2', 'L3', and this run finds"):
        match(habit=habit)
    with pytest.raises(ValueError, match="found corrections and a reading habit; give one of the two"):
        match(habit=habit, corrections=table)


def test_the_commands(folder: Path, found: Results, read: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What Python writes, and overlays of the moved landmarks; ``detect`` takes the same options."""
    images, out = folder / "images", tmp_path / "out"
    assert medpixcl("match", "--template", images / "phantom_000.png", "--landmarks", images / "landmarks.csv",
                    "--images", images, "--spacing-mm", 1, "--corrections", read, "-o", out) == 0  # fmt: skip
    table = found_in(out / "landmarks.csv")
    for place, true in zip(table["phantom_001.png"].values(), found.landmarks[0].mm + STEP, strict=True):
        assert place == pytest.approx(true.tolist(), abs=1e-3)
    assert (out / "overlays" / "phantom_002.png").is_file()
    assert "reading habit: St. <b>Mary, learnt from 1 corrected image of this run" in capsys.readouterr().out
    assert ReadingHabit.read(out / "habit.json").images == 1
    words = ["detect", "--images", images, "--spacing-mm", 1, "--habit", out / "habit.json", "-o"]
    assert medpixcl(*words, out, "--overwrite") == 2
    assert "habit.json is a result of the run in" in capsys.readouterr().err
    assert medpixcl(*words, tmp_path / "detected") == 0
    assert "was learnt with another kind of finder and another bundle and other weights" in capsys.readouterr().out


def _habit() -> ReadingHabit:
    shape = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 40.0]]).double()
    return ReadingHabit("clinic", learn_habit(["L1", "L2", "L3"], shape[None], shape[None] + 1), 1, {})


def _change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _change_first(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content["landmarks"][0] |= changes
    file.write_text(json.dumps(content))
