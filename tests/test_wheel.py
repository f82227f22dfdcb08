"""What `pip install` brings: the wheel is built, installed away from the sources, and matches from an empty folder."""

import csv
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from medpixcl.data.phantoms import write_phantoms
from tests.tiny import ROOT


def documented_weights() -> set[str]:
    """Bundles whose weights are installed, as the guide says."""
    guide = (ROOT / "docs" / "guide" / "bundles.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"The weights of ([^.]*) come along", guide)
    return set(re.findall(r"`(\w+)`", sentence))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling: install the extra `test`")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_contents(wheel: Path) -> None:
    """All configurations, documents and licences; the weights that the guide names; within the size allowed."""
    assert wheel.stat().st_size < 90e6
    with zipfile.ZipFile(wheel) as file:
        packed = {name.removeprefix("medpixcl/") for name in file.namelist() if name.startswith("medpixcl/bundles/")}
    tracked = [path.relative_to(ROOT) for path in (ROOT / "bundles").rglob("*") if path.is_file()]
    expected = {path.as_posix() for path in tracked if path.parts[2:3] in [("configs",), ("docs",), ("LICENSE",)]}
    expected |= {f"bundles/{name}/models/model.pt" for name in documented_weights()}
    assert packed == expected | {"bundles/weights.sha256"}


def test_match_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """With the shipped weights and no sources in sight, a landmark of the template is found in the template itself."""
    place, empty = tmp_path / "site", tmp_path / "empty"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "MEDPIXCL_BUNDLES"}
    environment |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}

    def run(*words: object) -> str:
        command = [sys.executable, "-m", "medpixcl", *map(str, words)]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = run("bundles", "list").splitlines()
    assert {line.strip() for line in listed if line.strip().startswith(str(place))} == {
        str(folder) for folder in (place / "medpixcl" / "bundles").iterdir() if folder.is_dir()
    }, "it is the installed package that runs"
    with_weights = {line.split()[0] for line in listed if line.endswith("weights: yes")}
    assert with_weights == documented_weights()
    assert list(empty.iterdir()) == []

    write_phantoms(tmp_path / "images", 1, (96, 80), seed=1)
    shutil.copy(tmp_path / "images" / "phantom_000.png", tmp_path / "images" / "copy.png")
    points = {"left": (20, 40), "right": (60, 41), "low": (39, 80), "middle": (41, 50)}
    rows = [f"phantom_000.png,{name},{x},{y}" for name, (x, y) in points.items()]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px", *rows]) + "\n")
    template = ["--template", tmp_path / "images" / "phantom_000.png", "--landmarks", tmp_path / "landmarks.csv"]
    options = ["--spacing-mm", 1, "--images", tmp_path / "images", "-o", "out", "--set", "overlays=false"]
    run("match", *template, *options)
    with (empty / "out" / "landmarks.csv").open(newline="") as file:
        found = {row["landmark"]: (float(row["x_px"]), float(row["y_px"])) for row in csv.DictReader(file)}
    assert found.keys() == points.keys()
    for name, (x, y) in points.items():
        assert abs(found[name][0] - x) < 2
        assert abs(found[name][1] - y) < 2
