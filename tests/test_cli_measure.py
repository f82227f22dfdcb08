"""`medpixcl measure`: from a landmark file to tables, tracings and the page."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medpixcl.landmarks.cephalometry import cephalometric_values, half_intervals, landmark_roles, measurements
from medpixcl.landmarks.cephalometry.definitions import measurement
from medpixcl.landmarks.regions import balls
from medpixcl.reports.figures import save_png
from tests.reports.test_html import Page
from tests.reports.test_tracing import ROLES, XY
from tests.tiny import medpixcl

NAMES = [one.name for one in measurements()]
SPACING = 0.5


def face(image: int) -> torch.Tensor:
    """Landmarks in pixels of 0.5 mm; every image has a chin a little further back."""
    points = XY / SPACING
    points[[5, 6, 7, 8], 0] -= 2.0 * image
    return points


def write_table(
    path: Path,
    images: dict[str, torch.Tensor],
    *,
    spacing: float | None = SPACING,
    names: tuple[str, ...] | None = None,
) -> Path:
    header = ["image", "landmark", "x_px", "y_px"] + ([] if spacing is None else ["spacing_mm"])
    lines = [",".join(header)]
    for image, points in images.items():
        for number, (x, y) in enumerate(points.tolist()):
            name = str(number + 1) if names is None else names[number]
            cells = ["", ""] if x != x else [f"{x}", f"{y}"]
            lines.append(",".join([image, name, *cells, *([] if spacing is None else [f"{spacing}"])]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def write_pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        grey = np.random.default_rng(seed).integers(0, 255, (340, 280), dtype=np.uint8)
        Image.fromarray(grey).save(folder / name)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(points: torch.Tensor) -> dict[str, float]:
    return dict(zip(NAMES, cephalometric_values(points[None] * SPACING, ROLES)[0].tolist(), strict=True))


def test_intervals_and_doubts(tmp_path: Path) -> None:
    """Radii and flags of the landmark file reach the angles, the classes and the page; the columns of before stay."""
    lines = ["image,landmark,x_px,y_px,spacing_mm,flag,radius_mm"]
    for number, (x, y) in enumerate(face(0).tolist()):
        lines.append(f"a.png,{number + 1},{x},{y},{SPACING},{'unsure' if number == 1 else ''},{3.0 + 0.1 * number}")
    (tmp_path / "landmarks.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    assert medpixcl("measure", tmp_path / "landmarks.csv", "-o", tmp_path / "out") == 0
    table = rows(tmp_path / "out" / "measurements.csv")
    assert list(table[0])[:8] == ["image", "group", "measurement", "value", "unit", "norm", "deviation_sd", "remark"]
    found = {row["measurement"]: row for row in table}
    radii = torch.tensor([[3.0 + 0.1 * number for number in range(19)]])
    halves = half_intervals(face(0)[None] * SPACING, ROLES, balls(radii, 2))[0].tolist()
    value, half = float(found["ANB"]["value"]), halves[NAMES.index("ANB")]
    assert float(found["ANB"]["low"]) == pytest.approx(value - half, abs=2e-3)
    assert float(found["ANB"]["high"]) == pytest.approx(value + half, abs=2e-3)
    assert found["ANB"]["remark"] == "unsure: landmark N"
    assert found["FMA"]["remark"] == ""
    classes = {row["classification"]: row["class"] for row in rows(tmp_path / "out" / "classes.csv")}
    assert " or " in classes["Skeletal class (ANB)"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "90 %, from the error radii or regions of the landmarks" in page
    assert classes["Skeletal class (ANB)"] in page
    (tmp_path / "landmarks.csv").write_text("\n".join([*lines[:1], "a.png,1,1,1,1,,-2", ""]), encoding="utf-8")
    assert medpixcl("measure", tmp_path / "landmarks.csv", "-o", tmp_path / "out", "--overwrite") == 2


def test_a_corrected_landmark_is_exact_and_one_without_a_region_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S (landmark 1) was placed by a reader: its angles keep an interval, of the others alone. N has no radius."""
    radii = torch.full((1, 19), 2.0)
    lines = [f"a.png,{number + 1},{x},{y},{SPACING}" for number, (x, y) in enumerate(face(0).tolist())]
    table, header = tmp_path / "landmarks.csv", "image,landmark,x_px,y_px,spacing_mm,flag,radius_mm"
    corrected = [f"{line},{'corrected' if row == 0 else ''},{'' if row == 0 else 2}" for row, line in enumerate(lines)]
    table.write_text("\n".join([header, *corrected, ""]), encoding="utf-8")
    assert medpixcl("measure", table, "-o", tmp_path / "out") == 0
    found = {row["measurement"]: row for row in rows(tmp_path / "out" / "measurements.csv")}
    radii[0, 0] = 0.0
    half = float(half_intervals(face(0)[None] * SPACING, ROLES, balls(radii, 2))[0, NAMES.index("SNA")])
    assert half > 0.5
    assert float(found["SNA"]["high"]) - float(found["SNA"]["low"]) == pytest.approx(2 * half, abs=2e-3)
    without = [f"{line},,{'' if row == 1 else 2}" for row, line in enumerate(lines)]
    table.write_text("\n".join([header, *without, ""]), encoding="utf-8")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert medpixcl("measure", table, "-o", tmp_path / "out", "--overwrite") == 0
    assert "1 file(s) that no run wrote, notes.txt first: they stay" in capsys.readouterr().out
    found = {row["measurement"]: row for row in rows(tmp_path / "out" / "measurements.csv")}
    assert found["ANB"]["low"] == ""
    assert "interval unknown" in found["ANB"]["remark"]
    assert found["FMA"]["low"] != "", "needs no nasion"
    classes = {row["classification"]: row["class"] for row in rows(tmp_path / "out" / "classes.csv")}
    assert classes["Skeletal class (ANB)"] == "III or I or II"


def test_tracings_of_what_a_run_wrote(tmp_path: Path) -> None:
    """Pixels and mm together say the size of a picture that does not state it."""
    images = write_pictures(tmp_path / "images", ["a.png"])
    lines = [f"a.png,{n + 1},{x},{y},{x * SPACING},{y * SPACING}" for n, (x, y) in enumerate(face(0).tolist())]
    table = tmp_path / "landmarks.csv"
    table.write_text("\n".join(["image,landmark,x_px,y_px,x_mm,y_mm", *lines, ""]), encoding="utf-8")
    assert medpixcl("measure", table, "-o", tmp_path / "out", "--images", images) == 0
    assert (tmp_path / "out" / "tracings" / "a.png").is_file()


def test_intervals_of_regions(tmp_path: Path) -> None:
    """Long ellipses along x, as ``detect`` writes regions: what moves along y alone is known, an angle is not."""
    regions = torch.diag(torch.tensor([9.0, 1e-6], dtype=torch.float64)).expand(19, 2, 2)
    lines = ["image,landmark,x_mm,y_mm,size_mm,flag,axis1_mm,axis1_x,axis1_y,axis2_mm,axis2_x,axis2_y"]
    points = face(0) * SPACING
    for number, (x, y) in enumerate(points.tolist()):
        lines.append(f"a.png,{number + 1},{x},{y},1,,3,1,0,0.001,0,-1")
    table = tmp_path / "regions.csv"
    table.write_text("\n".join([*lines, ""]), encoding="utf-8")
    assert medpixcl("measure", table, "-o", tmp_path / "out") == 0
    found = {row["measurement"]: row for row in rows(tmp_path / "out" / "measurements.csv")}
    halves = half_intervals(points[None], ROLES, regions[None])[0]
    for name in ("SNA", "ANB", "Overbite"):
        width = float(found[name]["high"]) - float(found[name]["low"])
        assert width == pytest.approx(2 * float(halves[NAMES.index(name)]), abs=2e-3)
    spaced = [lines[0].replace(",", ", "), *(line.replace(",", " , ") for line in lines[1:])]
    table.write_text("\n".join([*spaced, ""]), encoding="utf-8")
    again = tmp_path / "again"
    assert medpixcl("measure", table, "-o", again) == 0
    assert (again / "measurements.csv").read_bytes() == (tmp_path / "out" / "measurements.csv").read_bytes()


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("3,one,0,0.1,0,1", "expected numbers"),
        ("nan,1,0,0.1,0,1", "expected numbers"),
        ("inf,1,0,0.1,0,1", "expected numbers"),
        ("3,1,0,,0,1", "expected numbers"),
        ("-3,1,0,0.1,0,1", "semi-axes in mm of 0 or more"),
        ("3,30,40,0.1,0,1", "directions of length 1"),
        ("3,1,0,0.1,0.7071,0.7071", "at right angles"),
    ],
)
@pytest.mark.parametrize("command", ["measure", "evaluate"])
def test_damaged_regions(
    command: str, cells: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A region that is none is named with its line: never an interval or a hit."""
    table, truth = tmp_path / "regions.csv", tmp_path / "truth.csv"
    rows_of = [f"a.png,{number + 1},{x},{y}" for number, (x, y) in enumerate(face(0).tolist())]
    truth.write_text("\n".join(["image,landmark,x_mm,y_mm", *rows_of, ""]), encoding="utf-8")
    header = "image,landmark,x_mm,y_mm,axis1_mm,axis1_x,axis1_y,axis2_mm,axis2_x,axis2_y"
    table.write_text("\n".join([header, f"{rows_of[0]},{cells}", *(f"{row},,,,,," for row in rows_of[1:]), ""]))
    words = ["measure", table] if command == "measure" else ["evaluate", "--predictions", table, "--reference", truth]
    assert medpixcl(*words, "-o", tmp_path / "out.json") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "line 2" in shown
    assert said in shown


def test_incomplete_columns_of_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "regions.csv"
    table.write_text("image,landmark,x_mm,y_mm,axis1_mm,axis1_x,axis1_y\na.png,1,1,1,3,1,0\n", encoding="utf-8")
    assert medpixcl("measure", table, "-o", tmp_path / "out") == 2
    assert "axis2_mm" in capsys.readouterr().err


def test_tables_tracings_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = face(1)
    lost[9] = torch.nan  # gonion
    landmarks = write_table(tmp_path / "landmarks.csv", {"a.png": face(0), "b [1].png": lost, "c.png": face(2)})
    images = write_pictures(tmp_path / "images", ["a.png", "b [1].png"])
    out = tmp_path / "out"
    assert medpixcl("measure", landmarks, "-o", out, "--images", images) == 0
    found = {(row["image"], row["measurement"]): row for row in rows(out / "measurements.csv")}
    assert len(found) == 3 * len(NAMES)
    for image, points in (("a.png", face(0)), ("b [1].png", lost), ("c.png", face(2))):
        for name, value in expected(points).items():
            row = found[image, name]
            if np.isnan(value):
                assert row["value"] == ""
                assert row["remark"].startswith("not computable: landmark")
            else:
                assert float(row["value"]) == pytest.approx(value, abs=6e-4)
                assert row["remark"] == ""
            assert row["unit"] == measurement(name).unit
    assert found["b [1].png", "FMA"]["remark"] == "not computable: landmark Go missing"
    assert found["a.png", "IMPA"]["remark"] == "not computable: landmark L1A missing"
    convexity = found["a.png", "Convexity"]
    assert convexity["norm"] == "0 ± 5.1"
    assert float(convexity["deviation_sd"]) == pytest.approx(float(convexity["value"]) / 5.1, abs=0.01)
    classes = {(row["image"], row["classification"]): row["class"] for row in rows(out / "classes.csv")}
    assert classes["a.png", "Skeletal class (ANB)"] in ("I", "II", "III")
    assert classes["b [1].png", "Growth (Jarabak)"] == ""
    assert sorted(path.name for path in (out / "tracings").iterdir()) == ["a.png", "b [1].png"]
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 2
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert "not computable: landmark Go missing" in page.text
    assert "3 radiographs measured" in page.text
    assert str(tmp_path) not in page.text
    assert "report.html" in capsys.readouterr().out


def test_one_radiograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landmarks = write_table(tmp_path / "landmarks.csv", {"a.png": face(0)})
    assert medpixcl("measure", landmarks, "-o", tmp_path / "out") == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "1 radiograph measured" in page.text
    assert "deviation (SD)" in page.text
    assert not (tmp_path / "out" / "tracings").exists()
    assert "SNA" in capsys.readouterr().out


def test_readers_are_compared(tmp_path: Path) -> None:
    """Against each reference, and these with one another, over the images that both have."""
    model = write_table(tmp_path / "model.csv", {f"{n}.png": face(n) for n in range(4)})
    senior = write_table(tmp_path / "senior.csv", {f"{n}.png": face(n + 1) for n in range(4)})
    junior = write_table(tmp_path / "junior.csv", {f"images/{n}.png": face(3 * n) for n in range(1, 3)})
    out = tmp_path / "out"
    references = ["--reference", senior, "--reference", junior]
    (tmp_path / "exclude.txt").write_text("3.png\nelsewhere.png\n")
    assert medpixcl("measure", model, "-o", out, *references, "--exclude", tmp_path / "exclude.txt") == 0
    table = {(row["first"], row["second"], row["measurement"]): row for row in rows(out / "agreement.csv")}
    assert {key[:2] for key in table} == {("model", "senior"), ("model", "junior"), ("senior", "junior")}
    values = {
        "model": {n: expected(face(n))["SNB"] for n in range(3)},
        "senior": {n: expected(face(n + 1))["SNB"] for n in range(3)},
        "junior": {n: expected(face(3 * n))["SNB"] for n in range(1, 3)},
    }
    for first, second in (("model", "senior"), ("model", "junior"), ("senior", "junior")):
        shared = values[first].keys() & values[second].keys()
        differences = np.array([values[first][n] - values[second][n] for n in sorted(shared)])
        row = table[first, second, "SNB"]
        assert int(row["images"]) == len(shared)
        assert float(row["mean_absolute"]) == pytest.approx(np.abs(differences).mean(), abs=6e-4)
        assert float(row["bias"]) == pytest.approx(differences.mean(), abs=6e-4)
        assert float(row["sd"]) == pytest.approx(differences.std(ddof=1), abs=6e-4)
    classes = {(row["first"], row["second"], row["classification"]) for row in rows(out / "class_agreement.csv")}
    assert ("model", "senior", "Skeletal class (ANB)") in classes
    text = Page((out / "report.html").read_text(encoding="utf-8")).text
    assert "model - senior" in text
    assert "Cohen's kappa" in text
    assert {row["image"] for row in rows(out / "measurements.csv")} == {"0.png", "1.png", "2.png"}


def test_readers_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [write_table(tmp_path / folder / "landmarks.csv", {"a.png": face(n)}) for n, folder in enumerate("xy")]
    assert medpixcl("measure", files[0], "-o", tmp_path / "out", "--reference", files[1]) == 0
    row = rows(tmp_path / "out" / "agreement.csv")[0]
    assert (row["first"], row["second"]) == ("x/landmarks", "y/landmarks")


def test_names_may_be_given(tmp_path: Path) -> None:
    names = tuple(f"p{number}" for number in range(19))
    landmarks = write_table(tmp_path / "own.csv", {"a.png": face(0)}, names=names)
    table = tmp_path / "names.csv"
    table.write_text(
        "landmark,name\n" + "\n".join(f"{own},{role}" for own, role in zip(names, ROLES, strict=True)) + "\n"
    )
    assert medpixcl("measure", landmarks, "-o", tmp_path / "out", "--names", table) == 0
    found = {row["measurement"]: row["value"] for row in rows(tmp_path / "out" / "measurements.csv")}
    assert float(found["SNA"]) == pytest.approx(expected(face(0))["SNA"], abs=6e-4)


@pytest.mark.slow  # 23 tracings; `match` is interrupted in tests/test_cli_runs.py
def test_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped before the last of eight tracings: the first that the page does not show is not drawn again."""
    names = [f"{letter}.png" for letter in "abcdefgh"]
    landmarks = write_table(tmp_path / "landmarks.csv", {name: face(0) for name in names})
    words = ["measure", landmarks, "--images", write_pictures(tmp_path / "images", names), "-o"]
    drawn: list[str] = []

    def draw(figure: Any, path: Path) -> None:
        drawn.append(path.name)
        if len(drawn) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        save_png(figure, path)

    monkeypatch.setattr("medpixcl.apps.measure.save_png", draw)
    assert medpixcl(*words, tmp_path / "out") == 143
    assert "stopped after 7 of 8 images; the same command with --continue goes on" in capsys.readouterr().err
    assert medpixcl(*words, tmp_path / "out") == 2
    assert "holds an unfinished run (measure, 7 of 8 images); give --continue to go on" in capsys.readouterr().err
    assert medpixcl(*words, tmp_path / "out", "--continue") == 0
    assert drawn == [*names, *names[:6], "h.png"]
    assert medpixcl(*words, tmp_path / "whole") == 0
    whole, parts = ({one.relative_to(folder): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
                    for folder in (tmp_path / "whole", tmp_path / "out"))  # fmt: skip
    assert {name.as_posix() for name in whole} >= {"measurements.csv", "classes.csv", "report.html", "tracings/h.png"}
    runs = [json.loads(one.pop(Path("run.json"))) for one in (whole, parts)]
    assert parts == whole
    assert runs[0]["files"] == runs[1]["files"] == sorted(name.as_posix() for name in whole)


def test_pixels_without_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landmarks = write_table(tmp_path / "landmarks.csv", {"a.png": face(0)}, spacing=None)
    out = tmp_path / "out"
    assert medpixcl("measure", landmarks, "-o", out) == 2
    error = capsys.readouterr().err
    assert "position in pixels without spacing_mm" in error
    assert error.endswith("or give --spacing-mm.\n")
    assert medpixcl("measure", landmarks, "-o", out, "--spacing-mm", SPACING) == 0
    found = {row["measurement"]: row["value"] for row in rows(out / "measurements.csv")}
    assert float(found["AFH"]) == pytest.approx(expected(face(0))["AFH"], abs=6e-4)


@pytest.mark.slow
def test_millimetres_without_pixels_need_the_size_to_be_drawn(tmp_path: Path) -> None:
    """Slicer keeps mm only: measured as they are; drawn when the size of the picture's pixels is known."""
    points = [
        {"id": str(n), "label": str(role), "position": [x, y, 0.0], "positionStatus": "defined"}
        for n, (role, (x, y)) in enumerate(zip(ROLES, XY.tolist(), strict=True))
    ]
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}]}
    (tmp_path / "a.mrk.json").write_text(json.dumps(markups))
    images = write_pictures(tmp_path / "images", ["a.png"])
    out = tmp_path / "out"
    assert medpixcl("measure", tmp_path / "a.mrk.json", "-o", out, "--images", images) == 0
    found = {row["measurement"]: row["value"] for row in rows(out / "measurements.csv")}
    assert float(found["AFH"]) == pytest.approx(expected(face(0))["AFH"], abs=6e-4)
    assert not (out / "tracings").exists()
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "has no pixel spacing; give --spacing-mm" in page.text
    words = ["--images", images, "--spacing-mm", SPACING, "--overwrite"]
    assert medpixcl("measure", tmp_path / "a.mrk.json", "-o", out, *words) == 0
    assert (out / "tracings" / "a.png").is_file()


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landmarks = write_table(tmp_path / "landmarks.csv", {"a.png": face(0)})
    other = write_table(tmp_path / "other.csv", {"z.png": face(0)})
    strange = write_table(tmp_path / "strange.csv", {"a.png": face(0)[:2]}, names=("heart", "liver"))
    deep = tmp_path / "deep.csv"
    deep.write_text("image,landmark,x_mm,y_mm,z_mm\na.png,S,1,2,30\na.png,N,5,6,30\n")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "all.txt").write_text("a.png\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    twice = write_pictures(tmp_path / "twice", ["a.png"])
    write_pictures(twice / "copy", ["a.png"])
    for words, message in [
        ([tmp_path / "nothing.csv"], "nothing.csv does not exist"),
        ([landmarks, "--images", tmp_path / "nowhere"], "nowhere does not exist; expected a picture, a folder"),
        ([landmarks, "--images", empty], "empty holds no image of"),
        ([landmarks, "--images", twice], "are both the image 'a.png'; keep one of the two"),
        ([landmarks, "--reference", other], "other.csv measures none of the images of"),
        ([landmarks, "--names", tmp_path / "columns.csv"], "has the columns a, b; expected landmark and name"),
        ([landmarks, "--names", tmp_path / "no.csv"], "no.csv does not exist; expected a CSV"),
        ([landmarks, "--exclude", tmp_path / "all.txt"], "all of its 1 images are excluded"),
        ([strange], "none of the landmarks 'heart', 'liver' is a known cephalometric landmark"),
        ([deep], "lies at z = 30.0 mm; cephalometry takes the landmarks of a 2D radiograph"),
    ]:
        assert medpixcl("measure", *words, "-o", tmp_path / "out") == 2, words
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # three tables of 300 images
@pytest.mark.data
def test_public_cephalogram(data_dir: Path, tmp_path: Path) -> None:
    """A real radiograph by the landmarks of both readers; its pixel size stands in the landmark file only."""
    folder = data_dir / "ceph_isbi2015"
    picture = folder / "images" / "001.png"
    reference = ["--reference", folder / "landmarks_senior.csv", "--reference", folder / "landmarks_junior.csv"]
    assert medpixcl("measure", folder / "landmarks.csv", "-o", tmp_path / "out", "--images", picture, *reference) == 0
    tmp_path /= "out"
    with Image.open(tmp_path / "tracings" / "001.png") as tracing:
        assert min(tracing.size) > 800
    found = {(row["image"], row["measurement"]): row for row in rows(tmp_path / "measurements.csv")}
    with (folder / "landmarks.csv").open() as file:
        points = [(float(r["x_px"]), float(r["y_px"])) for r in csv.DictReader(file) if r["image"] == "images/001.png"]
    values = cephalometric_values(
        0.5 * torch.tensor([points], dtype=torch.float64), landmark_roles([str(n) for n in range(1, 20)])
    )
    for name, value in zip(NAMES, values[0].tolist(), strict=True):
        if not np.isnan(value):
            assert float(found["images/001.png", name]["value"]) == pytest.approx(value, abs=6e-4)
    assert {row["images"] for row in rows(tmp_path / "agreement.csv")} == {"300"}
