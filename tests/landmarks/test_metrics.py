import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from scipy import stats

from medpixcl.landmarks.metrics import (
    MeanRadialError,
    SuccessfulDetectionRate,
    evaluate_positions,
    file_name,
    pair_images,
    paired_bootstrap,
    radial_errors,
    summarise_errors,
)

NAN = float("nan")
ERRORS = torch.tensor([[1.0, 2.0], [3.0, NAN], [4.0, 0.0]])


class TestRadialErrors:
    @pytest.mark.parametrize(("point", "expected"), [((3.0, 4.0), 5.0), ((2.0, 3.0, 6.0), 7.0)])
    def test_known_triangles(self, point: tuple[float, ...], expected: float) -> None:
        points = torch.tensor(point).expand(2, 4, -1)
        assert torch.equal(radial_errors(points, torch.zeros_like(points)), torch.full((2, 4), expected))

    def test_missing_on_either_side_is_nan(self) -> None:
        points, missing = torch.zeros(1, 2), torch.tensor([[NAN, 0.0]])
        assert radial_errors(points, missing).isnan().all()
        assert radial_errors(missing, points).isnan().all()


class TestSummariseErrors:
    def test_hand_computed(self) -> None:
        summary = summarise_errors(ERRORS, ["a", "b"])
        assert summary["images"] == summary["images_measured"] == 3
        assert (summary["measured"], summary["missing"]) == (5, 1)
        assert summary["mre_mm"] == 2.0
        assert summary["std_mm"] == pytest.approx(math.sqrt(10 / 4))
        assert summary["median_mm"] == 2.0
        assert summary["p95_mm"] == pytest.approx(3.8)

    def test_sdr_is_strictly_below(self) -> None:
        sdr = summarise_errors(ERRORS, ["a", "b"])["sdr_percent"]
        assert sdr == {"2": 40.0, "2.5": 60.0, "3": 60.0, "4": 80.0}

    def test_rounding_does_not_decide_at_the_threshold(self) -> None:
        errors = torch.tensor([[2.0 - 1e-12, 2.0, 2.0 + 1e-12, 1.999]], dtype=torch.float64)
        assert summarise_errors(errors, list("abcd"))["sdr_percent"]["2"] == 25.0

    def test_per_landmark(self) -> None:
        landmarks = summarise_errors(ERRORS, ["a", "b"], thresholds=[2.5])["per_landmark"]
        assert landmarks["a"]["mre_mm"] == pytest.approx(8 / 3)
        assert landmarks["a"]["sdr_percent"]["2.5"] == pytest.approx(100 / 3)
        assert (landmarks["b"]["measured"], landmarks["b"]["missing"]) == (2, 1)
        assert landmarks["b"]["std_mm"] == pytest.approx(math.sqrt(2))

    def test_never_measured_is_none_and_json_has_no_nan(self) -> None:
        summary = summarise_errors(torch.tensor([[1.0, NAN], [NAN, NAN]]), ["a", "b"])
        assert summary["images_measured"] == 1
        assert summary["per_landmark"]["b"]["mre_mm"] is None
        assert summary["per_landmark"]["b"]["sdr_percent"]["2"] is None
        assert summary["std_mm"] is None
        assert summary["interval_95"] is None
        json.dumps(summary, allow_nan=False)

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
    def test_nothing_at_all(self, shape: tuple[int, int]) -> None:
        summary = summarise_errors(torch.zeros(shape), ["a", "b", "c"][: shape[1]])
        assert summary["measured"] == 0
        assert summary["mre_mm"] is None

    @pytest.mark.parametrize(
        ("errors", "names", "message"),
        [
            (torch.zeros(2, 2), ["a"], "found 1 names"),
            (torch.zeros(2, 2), ["a", "a"], "1 of them different"),
            (torch.full((1, 1), -1.0), ["a"], "negative or infinite"),
            (torch.full((1, 1), math.inf), ["a"], "negative or infinite"),
        ],
    )
    def test_bad_input(self, errors: torch.Tensor, names: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            summarise_errors(errors, names)


def clustered_errors(generator: np.random.Generator, *, images: int, landmarks: int) -> np.ndarray:
    """Errors of mean 2 whose points share most of their size within an image."""
    return generator.gamma(4, 0.25, size=(images, 1)) * generator.gamma(16, 2 / 16, size=(images, landmarks))


class TestIntervals:
    def test_seed_decides(self) -> None:
        errors = torch.from_numpy(clustered_errors(np.random.default_rng(0), images=20, landmarks=3))
        first, again, other = (summarise_errors(errors, ["a", "b", "c"], seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first["interval_95"] != other["interval_95"]

    def test_agrees_with_scipy(self) -> None:
        errors = clustered_errors(np.random.default_rng(0), images=30, landmarks=5)
        errors[np.random.default_rng(1).random(errors.shape) < 0.2] = np.nan
        ours = summarise_errors(torch.from_numpy(errors), list("abcde"), thresholds=[2.0], bootstrap=9999)[
            "interval_95"
        ]
        counts = (~np.isnan(errors)).sum(1)
        for sums, (low, high) in [
            (np.nansum(errors, 1), ours["mre_mm"]),
            (100.0 * (errors < 2).sum(1), ours["sdr_percent"]["2"]),
        ]:
            expected = stats.bootstrap(
                (sums, counts),
                lambda total, count, axis: total.sum(axis) / count.sum(axis),
                paired=True,
                vectorized=True,
                method="percentile",
                rng=np.random.default_rng(5),
            ).confidence_interval
            width = expected.high - expected.low
            assert low == pytest.approx(expected.low, abs=0.05 * width)
            assert high == pytest.approx(expected.high, abs=0.05 * width)

    def test_covers_the_truth_though_points_are_clustered(self) -> None:
        generator = np.random.default_rng(0)
        names = [str(index) for index in range(10)]
        covered = 0
        for _ in range(200):
            errors = torch.from_numpy(clustered_errors(generator, images=40, landmarks=10))
            low, high = summarise_errors(errors, names, bootstrap=200)["interval_95"]["mre_mm"]
            covered += low <= 2.0 <= high
        assert 0.88 <= covered / 200 <= 0.99

    def test_none_without_resamples(self) -> None:
        assert summarise_errors(ERRORS, ["a", "b"], bootstrap=0)["interval_95"] is None

    def test_equal_images_leave_no_width(self) -> None:
        interval = summarise_errors(torch.tensor([[1.0, 3.0]] * 4), ["a", "b"], thresholds=[2.0])["interval_95"]
        assert interval == {"mre_mm": [2.0, 2.0], "sdr_percent": {"2": [50.0, 50.0]}}


class TestPairedBootstrap:
    def test_hand_computed(self) -> None:
        a = torch.tensor([[3.0, 2.0], [4.0, NAN], [NAN, NAN]])
        b = torch.tensor([[1.0, 2.0], [3.0, 1.0], [NAN, NAN]])
        result = paired_bootstrap(a, b, thresholds=[2.0])
        assert (result["images"], result["measured"], result["unpaired"]) == (2, 3, 1)
        assert result["gain"]["mre_mm"] == 1.0
        assert result["gain"]["sdr_percent"]["2"] == pytest.approx(100 / 3)
        json.dumps(result, allow_nan=False)

    def test_swapping_turns_the_sign(self) -> None:
        generator = np.random.default_rng(3)
        a, b = (torch.from_numpy(clustered_errors(generator, images=15, landmarks=4)) for _ in range(2))
        there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
        assert there["gain"]["mre_mm"] == pytest.approx(-back["gain"]["mre_mm"])
        low, high = there["interval_95"]["mre_mm"]
        assert back["interval_95"]["mre_mm"] == pytest.approx([-high, -low])

    def test_pairing_sees_a_constant_gain_through_the_spread(self) -> None:
        errors = torch.from_numpy(clustered_errors(np.random.default_rng(0), images=10, landmarks=4)) + 1
        assert paired_bootstrap(errors, errors - 0.1)["interval_95"]["mre_mm"] == pytest.approx([0.1, 0.1])

    def test_nothing_in_common(self) -> None:
        result = paired_bootstrap(torch.tensor([[1.0]]), torch.tensor([[NAN]]))
        assert result["gain"]["mre_mm"] is None
        assert result["interval_95"] is None


class TestPairImages:
    def test_key_wins_over_name(self) -> None:
        assert pair_images(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == {k: k for k in ("a/1.png", "b/1.png")}

    def test_ambiguous_name(self) -> None:
        with pytest.raises(ValueError, match="'1' stands for 2 predicted and 1 reference images"):
            pair_images(["a/1.png", "b/1.png"], ["c/1.png"])

    def test_repeated_name_without_partner_is_no_problem(self) -> None:
        assert pair_images(["a/1.png", "b/1.png"], ["2.png"]) == {}

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("C:\\scans\\a.nii.gz", "a"),
            ("1.2.840.113", "1.2.840.113"),
            ("case.v2.png", "case.v2"),
            (".hidden", ".hidden"),
        ],
    )
    def test_file_name(self, key: str, name: str) -> None:
        assert file_name(key) == name


REFERENCE = {
    "truth/1.png": {"a": (0.0, 0.0), "b": (10.0, 0.0)},
    "truth/2.png": {"a": (0.0, 0.0), "b": None, "c": (5.0, 5.0)},
    "truth/3.png": {"a": (0.0, 0.0)},
    "truth/template.png": {"a": (0.0, 0.0)},
}
PREDICTIONS = {
    "run/2.png": {"a": (3.0, 4.0), "b": (1.0, 1.0), "z": (0.0, 0.0)},
    "run/1.png": {"a": (0.0, 1.0), "b": (NAN, NAN)},
    "run/4.png": {"a": (0.0, 0.0)},
    "run/template.png": {"a": (0.0, 0.0)},
}


class TestEvaluatePositions:
    def result(self) -> dict:
        return evaluate_positions(
            PREDICTIONS, REFERENCE, exclude={"elsewhere/template.png", "typo.png"}, thresholds=[2.0]
        )

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
        assert result["images_without_prediction"] == ["truth/3.png"]
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


class TestMonaiMetrics:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_inside_an_engine(self, dims: int) -> None:
        predicted = torch.zeros(2, 3, 2, dims)
        predicted[..., 0] = torch.tensor([[[1.0, 2.0], [3.0, NAN], [4.0, 0.0]], [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]])
        engine = Engine(lambda _, batch: (batch, torch.zeros_like(batch)))
        IgniteMetricHandler(MeanRadialError()).attach(engine, "mre")
        IgniteMetricHandler(SuccessfulDetectionRate(2.0)).attach(engine, "sdr")
        engine.run(predicted)
        assert engine.state.metrics["mre"] == pytest.approx(22 / 11)
        assert engine.state.metrics["sdr"] == pytest.approx(100 * 2 / 11)
        assert engine.state.metric_details["mre"].shape == (6, 2)

    def test_lists_of_images(self) -> None:
        metric = MeanRadialError()
        assert metric([torch.ones(1, 2)], [torch.ones(1, 2)]).shape == (1, 1)
        assert metric.aggregate() == 0

    def test_needs_points(self) -> None:
        with pytest.raises(ValueError, match="expected at least one call"):
            MeanRadialError().aggregate()
        with pytest.raises(ValueError, match="no reference positions"):
            MeanRadialError()(torch.zeros(1, 1, 2))


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
