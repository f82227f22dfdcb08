import json
from pathlib import Path

import pytest
import torch

from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.landmarks.habit import Habit
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.reports.tables import (
    comparison_rows,
    coverage_rows,
    habit_rows,
    landmark_summary_rows,
    overall_rows,
    region_rows,
    write_metrics_json,
)

NAN = float("nan")
METRICS = summarise_errors(torch.tensor([[1.0, NAN], [3.0, NAN]]), ["sella", "never"], thresholds=[2.0, 2.5])


def test_overall_rows_have_intervals_where_there_are_any() -> None:
    rows = {row[0]: row[1:] for row in overall_rows(METRICS)}
    assert rows["MRE (mm)"] == ["2.00", "[1.00, 3.00]"]
    assert rows["median (mm)"] == ["2.00", ""]
    assert rows["SDR < 2 mm (%)"] == ["50.00", "[0.00, 100.00]"]


def test_comparison_rows_join_the_thresholds() -> None:
    other = summarise_errors(torch.ones(1, 1), ["sella"], thresholds=[4.0])
    header, first, second = comparison_rows([("random", METRICS), ("trained", other)])
    assert header[-3:] == ["SDR < 2 mm (%)", "SDR < 2.5 mm (%)", "SDR < 4 mm (%)"]
    assert first[:4] == ["random", "2", "2", "2.00 [1.00, 3.00]"]
    assert first[-1] == "–"
    assert second == ["trained", "1", "0", "1.00", "1.00", "1.00", "–", "–", "100.00"]


class TestLandmarkRows:
    SCORES = torch.tensor([[0.5, NAN], [0.9, NAN]])
    UNSURE = torch.tensor([[True, False], [False, False]])

    def test_without_reference(self) -> None:
        header, sella, never = landmark_summary_rows(["sella", "never"], self.SCORES, self.UNSURE)
        assert header == ["landmark", "found", "mean confidence", "flagged (%)"]
        assert sella == ["sella", "2", "0.70", "50.00"]
        assert never == ["never", "0", "–", "–"]

    def test_with_reference(self) -> None:
        table = landmark_summary_rows(["sella", "unknown"], self.SCORES, self.UNSURE, METRICS)
        assert table[0][4:] == ["MRE (mm)", "median (mm)", "SDR < 2 mm (%)", "SDR < 2.5 mm (%)"]
        assert table[1][4:] == ["2.00", "2.00", "50.00", "50.00"]
        assert table[2][4:] == ["–"] * 4


def test_region_rows() -> None:
    header, sella, never = region_rows(["sella", "never"], torch.tensor([[1.0, NAN], [4.0, NAN], [2.0, NAN]]), 0.9)
    assert header[2:] == ["median 90 % radius (mm)", "smallest 90 % radius (mm)", "largest 90 % radius (mm)"]
    assert sella == ["sella", "3", "2.00", "1.00", "4.00"]
    assert never == ["never", "0", "–", "–", "–"]


def test_habit_rows() -> None:
    offsets, shape = torch.tensor([[1.0, -2.0], [-0.004, 0.0]]).double(), torch.zeros(2, 2).double()
    habit = Habit(("sella", "never"), offsets, torch.tensor([0.5, 0.8]).double(), (3, 0), shape)
    header, sella, never = habit_rows(habit, torch.tensor([2.1, NAN]))
    assert header[:4] == ["landmark", "corrections", "offset x (mm)", "offset y (mm)"]
    assert header[4:] == ["SD of the offset (mm)", "moved by the offset (mm)"]
    assert habit_rows(habit, None, matched_again=True)[0][-1] == "moved by matching again (mm)"
    assert sella == ["sella", "3", "1.00", "-2.00", "0.50", "2.10"]
    assert never == ["never", "0", "0.00", "0.00", "0.80", "–"]


def test_coverage_rows_hide_folders_of_images_only() -> None:
    metrics = evaluate_positions(
        {"jane doe/1.png": {"left/right": (0.0, 0.0)}, "jane doe/2.png": {}}, {"1.png": {"left/right": None}}
    )
    assert coverage_rows(metrics)[1:] == [
        ["images without reference", "1", "2.png"],
        ["images with points that lack a reference", "1", "1.png"],
    ]
    metrics = evaluate_positions({"1.png": {"left/right": (0.0, 0.0)}}, {"1.png": {}})
    assert coverage_rows(metrics)[1:] == [["landmarks without reference", "1", "left/right"]]


class TestFiles:
    def test_json_holds_all_digits(self, tmp_path: Path) -> None:
        write_metrics_json(tmp_path / "new" / "metrics.json", METRICS)
        assert json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8")) == METRICS

    def test_nan_is_refused_and_the_old_file_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        write_metrics_json(path, METRICS)
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_metrics_json(path, {"mre_mm": NAN})
        assert json.loads(path.read_text(encoding="utf-8")) == METRICS
        assert list(tmp_path.iterdir()) == [path]
