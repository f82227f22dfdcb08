import csv
import json
from pathlib import Path

import pytest

from medpixcl.data.landmarks.comparison import evaluate_positions

NAN = float("nan")
REFERENCE = {
    "1.png": {"a": (0.0, 0.0), "b": (10.0, 0.0)},
    "2.png": {"a": (0.0, 0.0), "b": None, "c": (5.0, 5.0)},
    "3.png": {"a": (0.0, 0.0)},
    "template.png": {"a": (0.0, 0.0)},
}
PREDICTIONS = {
    "run/2.png": {"a": (3.0, 4.0), "b": (1.0, 1.0), "z": (0.0, 0.0)},
    "run/1.png": {"a": (0.0, 1.0), "b": (NAN, NAN)},
    "run/4.png": {"a": (0.0, 0.0)},
    "run/template.png": {"a": (0.0, 0.0)},
}


class TestEvaluatePositions:
    def result(self) -> dict:
        return evaluate_positions(PREDICTIONS, REFERENCE, exclude={"template.png", "typo.png"}, thresholds=[2.0])

    def test_values(self) -> None:
        result = self.result()
        assert (result["images"], result["measured"], result["mre_mm"]) == (2, 2, 3.0)
        assert result["per_image"]["run/2.png"] == {"mre_mm": 5.0, "errors_mm": {"a": 5.0}}
        assert result["sdr_percent"]["2"] == 50.0
        json.dumps(result, allow_nan=False)

    def test_missing_as_miss(self) -> None:
        # Four points of the two images have a reference, one of them is predicted within 2 mm.
        assert self.result()["sdr_percent_missing_as_miss"]["2"] == 25.0

    def test_one_sided_things_are_listed(self) -> None:
        result = self.result()
        assert result["images_without_reference"] == ["run/4.png"]
        assert result["images_without_prediction"] == ["3.png"]
        assert result["landmarks_without_reference"] == ["z"]
        assert result["landmarks_without_prediction"] == ["c"]
        assert result["points_without_reference"] == {"run/2.png": ["b"]}
        assert result["points_without_prediction"] == {"run/1.png": ["b"], "run/2.png": ["c"]}
        assert result["excluded"] == ["run/template.png"]
        assert result["exclude_not_found"] == ["typo.png"]

    def test_excluded_by_key_spares_its_namesake(self) -> None:
        points = {"x/1.png": {"a": (0.0, 0.0, 0.0)}, "y/1.png": {"a": (1.0, 0.0, 0.0)}}
        result = evaluate_positions(points, points, exclude=["x/1.png"])
        assert [*result["per_image"]] == ["y/1.png"]

    def test_no_common_image(self) -> None:
        with pytest.raises(ValueError, match="none of the 1 predicted images is among the 1 reference images"):
            evaluate_positions({"1.png": {"a": (0.0, 0.0)}}, {"2.png": {"a": (0.0, 0.0)}})

    def test_mixed_dimensions(self) -> None:
        with pytest.raises(ValueError, match=r"positions of \[2, 3\] coordinates"):
            evaluate_positions({"1.png": {"a": (0.0, 0.0)}}, {"1.png": {"a": (0.0, 0.0, 5.0)}})
        flat = evaluate_positions({"1.png": {"a": (0.0, 0.0)}}, {"1.png": {"a": (3.0, 4.0, 0.0)}})
        assert flat["mre_mm"] == 5.0  # a picture's points as 3D Slicer writes them

    def test_reference_without_points(self) -> None:
        assert evaluate_positions({"1.png": {"a": (0.0, 0.0)}}, {"1.png": {}})["mre_mm"] is None


@pytest.mark.data
def test_two_readers_of_the_cephalograms(data_dir: Path) -> None:
    """Junior against senior reader on test set 1, against whole numbers: both marked the 0.1 mm pixels of the original.

    Ten points lie at exactly 2 mm. The mean, 2.363 mm, was also computed elsewhere from the original annotations.
    """
    readers = [read_test1(data_dir / "ceph_isbi2015" / f"landmarks_{name}.csv") for name in ("junior", "senior")]
    result = evaluate_positions(*readers, bootstrap=0)
    squares = []
    for image, points in readers[0].items():
        for name, point in points.items():
            other = readers[1][image][name]
            squares.append(sum(round((a - b) * 10) ** 2 for a, b in zip(point, other, strict=True)))
    assert result["measured"] == len(squares) == 19 * 150
    assert result["mre_mm"] == pytest.approx(2.363, abs=0.0005)
    for limit, rate in result["sdr_percent"].items():
        below = sum(square < (10 * float(limit)) ** 2 for square in squares)
        assert rate == pytest.approx(100 * below / len(squares), abs=1e-9)


def read_test1(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Positions in mm of images 151 to 300."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            if 151 <= int(Path(row["image"]).stem) <= 300:
                x, y = (float(row[axis]) * float(row["spacing_mm"]) for axis in ("x_px", "y_px"))
                table.setdefault(row["image"], {})[row["landmark"]] = (x, y)
    return table
