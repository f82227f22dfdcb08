"""Trainings under every control, and the command that runs them."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from medpixcl.apps.compare_controls import METRICS, compare_controls, summary_of_seeds
from tests.bundles.test_pixpro import TINY, XRAY, write_manifest
from tests.tiny import medpixcl

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def test_summary_is_over_seeds_at_the_largest_threshold() -> None:
    runs = [
        {"val_pixel_error": error, **{f"pairs/{n}_stride4_T{t}": v for t, n, v in pairs}}
        for error, pairs in (
            (3.0, [("0.7", "kill_rate", 0.0), ("2.8", "kill_rate", 0.2), ("2.8", "positives", 10.0)]),
            (5.0, [("0.7", "kill_rate", 0.0), ("2.8", "kill_rate", 0.4), ("2.8", "positives", 6.0)]),
        )
    ]
    found = summary_of_seeds(runs)
    assert found == pytest.approx(
        {"val_pixel_error": 4, "spread": statistics.stdev([3, 5]), "kill_rate": 0.3, "positives": 8}
    )


def test_command_writes_a_table_and_keeps_what_is_trained(tmp_path: Path) -> None:
    manifest, output = write_manifest(tmp_path), tmp_path / "runs"
    changes = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    words = ["compare-controls", XRAY, "--data", manifest, "-o", output, "--seeds", 1, *changes]
    assert medpixcl(*words, "--control", "none", "--control", "no_depth") == 0
    with (output / "controls.csv").open(newline="") as file:
        rows = {row["control"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["none", "no_depth"]
    assert float(rows["none"]["kill_rate"]) > 0
    assert float(rows["no_depth"]["kill_rate"]) == 0
    kept = output / "none_seed0" / METRICS
    changed = json.loads(kept.read_text()) | {"val_pixel_error": 123.0}
    kept.write_text(json.dumps(changed))
    overrides = {**TINY, "data_list_file_path": str(manifest)}
    assert compare_controls(XRAY, output, overrides, controls=["none"], seeds=[0])[0]["val_pixel_error"] == 123.0


def test_unknown_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare-controls", XRAY, "--data", write_manifest(tmp_path), "-o", tmp_path / "runs"]
    assert medpixcl(*words, "--control", "shufled") != 0
    assert "control is 'shufled'; expected one of none, shuffled" in " ".join(capsys.readouterr().err.split())
