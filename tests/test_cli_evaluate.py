"""`medpixcl evaluate` with several readers, radii and cephalometric measurements; numbers by hand."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import write_landmarks
from medpixcl.landmarks.points import LandmarkSet
from tests.tiny import medpixcl

NAMES = {"S": (40.0, 30.0), "N": (90.0, 25.0), "A": (88.0, 75.0), "B": (84.0, 100.0)}


def write(path: Path, *, shift: tuple[float, float] = (0, 0), radius: float | None = None, without: str = "") -> Path:
    """The same four landmarks of two images, point A moved."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "landmark", "x_mm", "y_mm", *(["radius_mm"] if radius else [])])
        for image in ("one.png", "two.png"):
            for name, (x, y) in NAMES.items():
                moved = (x + shift[0], y + shift[1]) if name == "A" else (x, y)
                cells = ["", ""] if name == without else moved
                table.writerow([image, name, *cells, *([radius] if radius else [])])
    return path


def test_several_readers_and_radii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lies 5 mm (3, 4) from the first reader's and 3 mm from the second's; the readers' lie 4 mm apart."""
    found = write(tmp_path / "found.csv", shift=(3, 4), radius=2.0, without="B")
    senior, junior = write(tmp_path / "senior.csv"), write(tmp_path / "junior.csv", shift=(0, 4))
    words = ["evaluate", "--predictions", found, "--reference", senior, "--reference", junior]
    assert medpixcl(*words, "-o", tmp_path / "metrics.json") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mre_mm"] == pytest.approx(5 / 3)
    readers = {title: entry["mre_mm"] for title, entry in metrics["readers"].items()}
    assert readers == {
        "found against senior": pytest.approx(5 / 3),
        "found against junior": pytest.approx(3 / 3),
        "found against mean of readers": pytest.approx(13**0.5 / 3),  # A: (3, 2)
        "senior against junior": pytest.approx(4 / 4),
    }
    coverage = metrics["radius_coverage"]
    assert coverage["measured"] == pytest.approx(2 / 3)
    assert (coverage["points"], coverage["mean_radius_mm"]) == (6, 2.0)
    assert coverage["per_landmark"] == {"S": 1.0, "N": 1.0, "A": 0.0}
    shown = capsys.readouterr().out
    assert "within their radius: 66.7 % of 6 points" in shown
    assert "Readers" in shown
    (tmp_path / "exclude.txt").write_text("one.png\n")
    assert medpixcl(*words, "-o", tmp_path / "metrics.json", "--exclude", tmp_path / "exclude.txt") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {entry["images"] for entry in metrics["readers"].values()} == {1}
    assert metrics["radius_coverage"]["points"] == 3


def test_angles_beside_what_the_readers_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SNA by hand: the angle at N between S and A, for A moved and not."""
    from math import atan2, degrees

    def sna(x: float, y: float) -> float:
        (sx, sy), (nx, ny) = NAMES["S"], NAMES["N"]
        return abs(degrees(atan2(y - ny, x - nx) - atan2(sy - ny, sx - nx))) % 360

    found = write(tmp_path / "found.csv", shift=(3, 0))
    senior, junior = write(tmp_path / "senior.csv"), write(tmp_path / "junior.csv", shift=(-1, 0))
    words = ["evaluate", "--predictions", found, "--reference", senior, "--reference", junior, "--angles"]
    assert medpixcl(*words, "-o", tmp_path / "metrics.json") == 0
    measured = json.loads((tmp_path / "metrics.json").read_text())["measurements"]
    angle = {shift: sna(NAMES["A"][0] + shift, NAMES["A"][1]) for shift in (3, 0, -1)}
    for title, one, other in (
        ("found against senior", 3, 0),
        ("found against junior", 3, -1),
        ("senior against junior", 0, -1),
    ):
        entry = measured[title]["SNA"]
        assert entry["mean_absolute"] == pytest.approx(abs(angle[one] - angle[other]), abs=1e-6)
        assert entry["images"] == 2
        assert "FMA" not in measured[title]  # its landmarks are not there
    assert "SNA" in capsys.readouterr().out


def test_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ellipse of semi-axes 5 and 1 mm, turned by 30 degrees: the place 4 mm along it lies in it, 2 mm across not."""
    c, s = 3**0.5 / 2, 0.5
    axes = [5, c, s, 1, -s, c]
    header = ["image", "landmark", "x_mm", "y_mm", "size_mm", "unsure"]
    header += [f"axis{n}_{what}" for n in (1, 2) for what in ("mm", "x", "y")]
    true = {"along": (10 + 4 * c, 20 + 4 * s), "across": (10 - 2 * s, 20 + 2 * c)}
    with (tmp_path / "regions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows([["a.png", name, 10, 20, 2.2, "", *axes] for name in true])
    with (tmp_path / "true.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "landmark", "x_mm", "y_mm"])
        table.writerows([["a.png", name, *place] for name, place in true.items()])
    words = ["evaluate", "--predictions", tmp_path / "regions.csv", "--reference", tmp_path / "true.csv"]
    assert medpixcl(*words, "-o", tmp_path / "metrics.json") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["region_coverage"] == {"measured": 0.5, "points": 2, "per_landmark": {"along": 1.0, "across": 0.0}}
    assert metrics["mre_mm"] == pytest.approx(3.0)
    assert "within their region: 50.0 % of 2 points" in capsys.readouterr().out


def test_a_file_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the same path, another path of the same file, or a link to it; also as the second reference."""
    one, other = write(tmp_path / "one.csv"), write(tmp_path / "other.csv", shift=(1, 0))
    (tmp_path / "link.csv").symlink_to(one)
    (tmp_path / "sub").mkdir()
    for again in (one, tmp_path / "sub" / ".." / "one.csv", tmp_path / "link.csv"):
        for words in (["--reference", again], ["--reference", other, "--reference", again]):
            assert medpixcl("evaluate", "--predictions", one, *words, "-o", tmp_path / "m.json") == 2
            assert "is the same file as" in capsys.readouterr().err
        assert medpixcl("measure", one, "--reference", again, "-o", tmp_path / "out") == 2
        assert "is the same file as" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()
    assert not (tmp_path / "out").exists()


def test_copies_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, other = write(tmp_path / "found.csv"), write(tmp_path / "other.csv", shift=(0.01, 0))
    copy = shutil.copy(found, tmp_path / "copy.csv")
    names = tmp_path / "names.csv"
    names.write_text("landmark,name\nS,sella\nN,nasion\nA,subspinale\nB,supramentale\n")
    measure = ["measure", found, "--names", names, "-o", tmp_path / "out"]
    for reference, copied in ((other, False), (copy, True)):
        assert medpixcl("evaluate", "--predictions", found, "--reference", reference, "-o", tmp_path / "m.json") == 0
        assert ("is one a copy of the other?" in capsys.readouterr().out) == copied
        assert medpixcl(*measure, "--reference", reference, "--overwrite") == 0
        assert ("is one file a copy of the other?" in capsys.readouterr().out) == copied
    words = ["--reference", other, "--reference", shutil.copy(other, tmp_path / "again.csv")]
    assert medpixcl("evaluate", "--predictions", found, *words, "-o", tmp_path / "m.json") == 0
    assert "other against again: every point lies at the same place" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "json", "mrk.json", "coco"])
def test_exchanged_files_are_named(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of marks, against what was found, in every format that holds the scores of what was found."""
    marks = write(tmp_path / "marks.csv", shift=(3, 4))
    points = LandmarkSet(tuple(NAMES), torch.tensor([[y, x] for x, y in NAMES.values()]), torch.full((4,), 0.7))
    found = [ImageLandmarks(f"{name}.png", points, image_affine((1.0, 1.0)), (128, 128)) for name in ("one", "two")]
    write_landmarks(tmp_path / "found", found, [form])
    files = tmp_path / "found" / "markups" if form == "mrk.json" else next((tmp_path / "found").glob("*.*"))
    for predictions, reference, exchanged in ((files, marks, False), (marks, files, True)):
        words = ["evaluate", "--predictions", predictions, "--reference", reference, "-o", tmp_path / "m.json"]
        assert medpixcl(*words) == 0
        assert json.loads((tmp_path / "m.json").read_text())["mre_mm"] == pytest.approx(5 / 4)
        shown = capsys.readouterr().out
        asked = f"{reference} has scores, as predictions have, and {predictions} has none: were the two exchanged?"
        assert (asked in shown) == exchanged
        assert ("exchanged" in shown) == exchanged


def test_images_that_a_reader_corrected_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The marks of a reader are no success of the program that found the others; a reader's own file is measured."""
    rows = ["a.png,L1,0,0,corrected", "a.png,L2,9,9,", "b.png,L1,3,4,", "b.png,L2,9,9,unsure"]
    table, truth = tmp_path / "found.csv", tmp_path / "true.csv"
    table.write_text("\n".join(["image,landmark,x_mm,y_mm,flag", *rows, ""]), encoding="utf-8")
    lines = [f"{image}.png,{name},{at},{at}" for image in "ab" for name, at in (("L1", 0), ("L2", 9))]
    truth.write_text("\n".join(["image,landmark,x_mm,y_mm", *lines, ""]), encoding="utf-8")
    words = ["evaluate", "--predictions", table, "--reference", truth, "-o", tmp_path / "metrics.json"]
    assert medpixcl(*words) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mre_mm"] == pytest.approx(2.5)
    assert metrics["excluded"] == ["a.png"]
    assert "1 image(s)" in " ".join(capsys.readouterr().out.split())
    table.write_text("\n".join(["image,landmark,x_mm,y_mm,flag", *rows[:2], ""]), encoding="utf-8")
    assert medpixcl(*words) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["measured"] == 2


def test_pixels_with_a_size_on_the_command_line(tmp_path: Path) -> None:
    """The CSV that the quickstart shows, as the truth."""
    (tmp_path / "found.csv").write_text("image,landmark,x_mm,y_mm\na.png,L1,2,3\n", encoding="utf-8")
    (tmp_path / "true.csv").write_text("image,landmark,x_px,y_px\na.png,L1,4,12\n", encoding="utf-8")
    words = ["evaluate", "--predictions", tmp_path / "found.csv", "--reference", tmp_path / "true.csv"]
    assert medpixcl(*words, "-o", tmp_path / "metrics.json") == 2
    assert medpixcl(*words, "--spacing-mm", 0.5, "-o", tmp_path / "metrics.json") == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["mre_mm"] == pytest.approx(3)
