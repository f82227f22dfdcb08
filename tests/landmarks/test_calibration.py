"""Conformal radii against exact arithmetic, and their coverage of fresh draws."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from medpixcl.landmarks.calibration import (
    RadiusCalibration,
    calibrate_radii,
    conformal_quantile,
    coverage_of,
    with_readers,
)
from tests.reference.conformal import quantile


@pytest.mark.parametrize("coverage", [Fraction(1, 2), Fraction(8, 10), Fraction(9, 10), Fraction(95, 100)])
@pytest.mark.parametrize("count", [1, 8, 9, 10, 19, 99, 100])
def test_the_rank_is_exact(count: int, coverage: Fraction, generator: torch.Generator) -> None:
    """Also where (N + 1) * coverage is whole, and with missing scores."""
    scores = torch.rand(count + 3, 4, generator=generator)
    scores[:3] = torch.nan
    scores = scores[torch.randperm(count + 3, generator=generator)]
    scores[0, 0] = torch.nan
    found = conformal_quantile(scores, float(coverage))
    assert found.tolist() == [quantile(column, coverage) for column in scores.T.tolist()]


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1])
def test_coverage_must_be_a_share(coverage: float) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        conformal_quantile(torch.rand(3), coverage)


@pytest.mark.parametrize("count", [9, 24, 57])
def test_a_new_error_lies_within_as_often_as_promised(count: int, generator: torch.Generator) -> None:
    """Over many draws the mean coverage is ceil((N + 1) * 0.9) / (N + 1), for any continuous distribution."""
    draws = torch.randn(count + 1, 40_000, generator=generator).exp()
    radius = conformal_quantile(draws[:-1], 0.9)
    expected = math.ceil((count + 1) * Fraction(9, 10)) / (count + 1)
    share = float((draws[-1] <= radius).double().mean())
    assert share == pytest.approx(expected, abs=5 * math.sqrt(0.09 / 40_000))


@pytest.mark.parametrize("dims", [2, 3])
def test_readers_add_their_variance(dims: int, generator: torch.Generator) -> None:
    """Mean square of the sum: that of the error, and 2 * dims * sd^2 of two marks."""
    errors = torch.full((40_000, 2), 1.5)
    squares = with_readers(errors, 0.8, dims, generator).square().double().mean()
    assert squares.item() == pytest.approx(1.5**2 + 2 * dims * 0.8**2, rel=0.02)
    torch.testing.assert_close(with_readers(errors, 0.0, dims, generator), errors)
    with pytest.raises(ValueError, match="reader_mm is -1"):
        with_readers(errors, -1.0, dims, generator)


class TestGroups:
    def test_each_landmark_and_group_has_its_own_quantile(self, generator: torch.Generator) -> None:
        errors = torch.rand(60, 3, generator=generator)
        unsure = torch.rand(60, 3, generator=generator) < 0.4
        errors[unsure] += 5
        made = calibrate_radii(errors, unsure, ["a", "b", "c"], coverage=0.9)
        for group, members in (("sure", ~unsure), ("unsure", unsure)):
            for number in range(3):
                own = errors[members[:, number], number].tolist()
                assert made.radii_mm[group][number] == quantile(own, Fraction(9, 10))
                assert made.examples[group][number] == len(own)

    def test_unsure_landmarks_have_a_radius_no_smaller_than_sure_ones(self, generator: torch.Generator) -> None:
        """Without unsure examples that of all examples; with three the largest of them; and never the smaller one."""
        errors = torch.rand(20, 2, generator=generator)
        nowhere = torch.zeros(20, 2, dtype=torch.bool)
        made = calibrate_radii(errors, nowhere, ["a", "b"], coverage=0.9)
        assert made.radii_mm["unsure"] == made.radii_mm["sure"]
        assert None not in made.radii_mm["sure"]
        few = nowhere.clone()
        few[:3, 1] = True
        errors[:3, 1] = torch.tensor([4.0, 9.0, 5.0])
        made = calibrate_radii(errors, few, ["a", "b"], coverage=0.9)
        assert made.radii_mm["unsure"] == (9.0, 9.0)
        many = nowhere.clone()
        many[10:] = True
        errors = torch.where(many, 0.1, 1.0) * torch.ones(20, 2)
        made = calibrate_radii(errors, many, ["a", "b"], coverage=0.9)
        assert made.radii_mm == {"sure": (1.0, 1.0), "unsure": (1.0, 1.0)}

    def test_few_examples_take_the_group_as_a_whole(self) -> None:
        errors = torch.arange(1.0, 21.0).view(10, 2)
        unsure = torch.zeros(10, 2, dtype=torch.bool)
        unsure[:6] = True
        made = calibrate_radii(errors, unsure, ["a", "b"], coverage=0.9)
        pooled = quantile(errors[:6].flatten().tolist(), Fraction(9, 10))
        assert made.radii_mm == {"sure": (None, None), "unsure": (pooled, pooled)}
        assert made.radii_of(["b", "a"], ["unsure", ""])[0] == pooled
        assert made.radii_of(["b", "a"], ["missing", ""]).isnan().all()

    def test_an_unknown_landmark(self) -> None:
        made = calibrate_radii(torch.rand(20, 1), torch.zeros(20, 1, dtype=torch.bool), ["a"])
        with pytest.raises(ValueError, match="the calibration has no landmark 'b'"):
            made.radii_of(["b"], [""])


class TestFile:
    def test_written_and_read(self, tmp_path: Path, generator: torch.Generator) -> None:
        made = calibrate_radii(torch.rand(20, 2, generator=generator), torch.zeros(20, 2, dtype=torch.bool), ["a", "b"])
        path = tmp_path / "calibration.json"
        path.write_text(made.to_json(), encoding="utf-8")
        assert RadiusCalibration.read(path) == made

    @pytest.mark.parametrize("text", ["", "[]", '{"names": ["a"]}', '{"names": 3, "coverage": 0.9}'])
    def test_another_file(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "other.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"other\.json is no calibration"):
            RadiusCalibration.read(path)


def test_coverage_of_what_is_known() -> None:
    errors = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    radii = torch.tensor([[1.0, 1.0], [torch.nan, 1.0]])
    assert coverage_of(errors, radii) == 0.5
    assert math.isnan(coverage_of(errors[:0], radii[:0]))
