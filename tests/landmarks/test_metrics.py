import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from medpixcl.landmarks.metrics import paired_bootstrap, radial_errors, summarise_errors

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
