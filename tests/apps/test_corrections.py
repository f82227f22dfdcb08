"""Correct once, apply to all: from the edited files of one run to the positions, report and habit of the next."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medpixcl.data.phantoms import write_landmark_phantoms
from tests.tiny import MATCHING, medpixcl

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
IMAGES = [f"phantom_{number:03}" for number in range(1, 5)]
STEP = np.array([2.0, -1.0])
"""How far the reader moves every landmark, (x, y) in mm."""
Table = dict[str, dict[str, dict[str, str]]]


def rows_of(folder: Path) -> Table:
    """Rows of the landmark table by image without suffix and landmark."""
    table: Table = {}
    with (folder / "landmarks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            table.setdefault(row["image"].removesuffix(".png"), {})[row["landmark"]] = row
    return table


def places(folder: Path, image: str) -> np.ndarray:
    """Positions (x, y) in mm of an image's landmarks, (K, 2)."""
    return np.array([[float(row["x_mm"]), float(row["y_mm"])] for row in rows_of(folder)[image].values()])


def edit(file: Path, step: np.ndarray, only: int | None = None) -> None:
    """Move the points of a Slicer file as a reader does."""
    content = json.loads(file.read_text())
    for number, point in enumerate(content["markups"][0]["controlPoints"]):
        if only in (None, number):
            point["position"] = [point["position"][0] + step[0], point["position"][1] + step[1], 0.0]
    file.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Matches the phantoms 1 to 4 with phantom 0; the result of a run without corrections lies in ``found``."""
    write_landmark_phantoms(tmp_path / "images", 5, (64, 56))

    def match(output: str, *more: object) -> Path:
        words = ["match", "--bundle", MATCHING, "--template", tmp_path / "images" / "phantom_000.png", "--landmarks",
                 tmp_path / "images" / "landmarks.csv", "--images", tmp_path / "images", "--spacing-mm", 1]  # fmt: skip
        assert medpixcl(*words, "-o", tmp_path / output, *more) == 0
        return tmp_path / output

    match("found", "--set", "overlays=false")
    return match


@pytest.fixture
def read(run: Callable[..., Path], tmp_path: Path) -> Path:
    """Folder with the Slicer file of phantom 1, whose landmarks a reader has moved."""
    folder = tmp_path / "St. Mary"
    folder.mkdir()
    shutil.copy(tmp_path / "found" / "markups" / "phantom_001.mrk.json", folder)
    edit(folder / "phantom_001.mrk.json", STEP)
    return folder


def test_one_corrected_image_moves_the_others(run: Callable[..., Path], read: Path, tmp_path: Path) -> None:
    out, found = (
        run("out", "--corrections", read, "--reference", tmp_path / "images" / "landmarks.csv"),
        tmp_path / "found",
    )
    np.testing.assert_allclose(places(out, IMAGES[0]), places(found, IMAGES[0]) + STEP, atol=1e-3)
    assert {row["flag"] for row in rows_of(out)[IMAGES[0]].values()} == {"corrected"}
    for image in IMAGES[1:]:
        steps = places(out, image) - places(found, image)
        assert (steps @ STEP > 0.1 * STEP @ STEP).all(), "towards the reader's"
        assert (np.linalg.norm(steps, axis=1) < 0.9 * np.linalg.norm(STEP)).all(), "one image is no proof"
        flags = [{name: row["flag"] for name, row in rows_of(folder)[image].items()} for folder in (out, found)]
        assert flags[0] == flags[1]
    assert rows_of(out).keys() == set(IMAGES)
    assert (out / "overlays" / "phantom_002.png").is_file()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["excluded"] == ["phantom_001.png"]
    assert metrics["per_image"].keys() == {f"{image}.png" for image in IMAGES[1:]}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "St. Mary, learnt from 1 corrected images of this run" in page
    assert "without the 1 corrected images of the reference" in page
    assert "Reading habit" in page


def test_the_habit_in_a_later_run(run: Callable[..., Path], read: Path) -> None:
    """The same offsets for all images, the corrected one now among them."""
    first = run("first", "--corrections", read, "--set", "overlays=false")
    later = run("later", "--habit", first / "habit.json", "--set", "overlays=false")
    for image in IMAGES[1:]:
        np.testing.assert_allclose(places(later, image), places(first, image), atol=1e-3)
    assert "corrected" not in {row["flag"] for row in rows_of(later)[IMAGES[0]].values()}
    page = (later / "report.html").read_text(encoding="utf-8")
    assert "St. Mary, learnt from 1 corrected images of another run" in page
    assert "with another" not in page


def test_untouched_files_teach_nothing(run: Callable[..., Path], read: Path, tmp_path: Path) -> None:
    """The whole folder of the run, of which one file was edited: the three others are not taken for confirmed."""
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "found" / "markups", whole)
    shutil.copy(read / "phantom_001.mrk.json", whole)
    one, all_files = (
        run(folder.name + " out", "--corrections", folder, "--set", "overlays=false") for folder in (read, whole)
    )
    for image in IMAGES:
        np.testing.assert_allclose(places(all_files, image), places(one, image), atol=1e-3)
    assert (
        "3 images of the corrections have every landmark where it was found" in (all_files / "report.html").read_text()
    )
