"""Conformal ellipses and ellipsoids against scipy and exact ranks, and their coverage of fresh draws."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.stats import binomtest, special_ortho_group

from medpixcl.landmarks.calibration import calibrate_radii
from medpixcl.landmarks.heatmaps import encode_heatmaps, heatmap_covariance
from medpixcl.landmarks.regions import (
    RegionCalibration,
    calibrate_regions,
    coverage_report,
    covered,
    has_shape,
    mahalanobis_distance,
    region_scale,
    region_size,
    semi_axes,
    wilson_interval,
)
from tests.reference.conformal import quantile

DIMS = pytest.mark.parametrize("dims", [2, 3])
NAN = float("nan")


def covariances(count: int, landmarks: int, dims: int, seed: int = 0, longest: float = 5.0) -> torch.Tensor:
    """Random ones, of standard deviations from 0.5 to ``longest`` mm in random directions, (count, landmarks, D, D)."""
    state = np.random.default_rng(seed)
    turns = special_ortho_group.rvs(dims, size=count * landmarks, random_state=state).reshape(-1, dims, dims)
    variances = np.exp(state.uniform(np.log(0.5), np.log(longest), (count * landmarks, dims))) ** 2
    made = turns @ (variances[:, :, None] * turns.transpose(0, 2, 1))
    return torch.from_numpy(made.reshape(count, landmarks, dims, dims))


def draws(covariance: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Errors of these shapes, but three times as long and with heavy tails: the covariances are overconfident."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(covariance.shape[:-1], generator=generator, dtype=torch.float64)
    tails = 3 * torch.randn(covariance.shape[:-2], generator=generator, dtype=torch.float64).exp()
    return tails[..., None] * (torch.linalg.cholesky(covariance) @ normal[..., None])[..., 0]


@DIMS
def test_what_has_a_shape(dims: int) -> None:
    line, point = torch.eye(dims), torch.zeros(dims, dims)
    line[0, 0] = 0
    endless, long = torch.eye(dims), torch.eye(dims)
    endless[0, 0], long[0, 0] = torch.inf, 101.0**2
    cases = [torch.eye(dims), 2e-6 * torch.eye(dims), line, point, endless, long, torch.full((dims, dims), NAN)]
    assert has_shape(torch.stack(cases)).tolist() == [True, True, False, False, False, False, False]
    assert has_shape(torch.stack([5e-7 * torch.eye(dims)])).tolist() == [False]


@DIMS
def test_distance_is_scipys(dims: int) -> None:
    spread = covariances(4, 3, dims)
    away = draws(spread)
    found = mahalanobis_distance(away, spread)
    for cell in np.ndindex(4, 3):
        wanted = mahalanobis(away[cell], np.zeros(dims), np.linalg.inv(spread[cell]))
        assert float(found[cell]) == pytest.approx(wanted, rel=1e-9)
    assert mahalanobis_distance(away, torch.zeros_like(spread)).isnan().all()


@DIMS
def test_axes_and_size_and_border(dims: int) -> None:
    """Places along an axis lie inside up to its length; the size is that of the ball of the same area or volume."""
    lengths = torch.tensor([4.0, 2.0, 0.5][:dims], dtype=torch.float64)
    turn = torch.from_numpy(special_ortho_group.rvs(dims, random_state=np.random.default_rng(5)))
    region = turn @ torch.diag(lengths.flip(0) ** 2) @ turn.T
    found, directions = semi_axes(region)
    torch.testing.assert_close(found, lengths)
    for length, direction in zip(found, directions.T, strict=True):
        assert covered(0.999 * length * direction, region) == 1
        assert covered(-1.001 * length * direction, region) == 0
    volume = {2: math.pi, 3: 4 / 3 * math.pi}[dims]
    radius = float(region_size(region))
    assert volume * radius**dims == pytest.approx(volume * float(lengths.prod()))
    assert region_size(torch.full((dims, dims), NAN)).isnan()
    assert covered(torch.full((dims,), NAN), region).isnan()


@DIMS
def test_quantiles_of_each_kind(dims: int) -> None:
    """Each landmark has its own exact rank; one without a shape that of the distances; what is missing counts not."""
    spread = covariances(40, 3, dims)
    away = draws(spread)
    spread[:15, 1] = 0
    away[20:22, 0] = NAN
    spread[22, 0] = NAN
    made = calibrate_regions(away, spread, ["a", "b", "c"], coverage=0.8)
    assert made.examples == ((37, 0), (25, 15), (40, 0))
    share = Fraction(8, 10)
    scores = [
        [
            mahalanobis(a, np.zeros(dims), np.linalg.inv(s))
            for a, s in zip(away[:, k], spread[:, k], strict=True)
            if ok(a, s)
        ]
        for k in range(3)
    ]
    balls = [float(np.linalg.norm(a)) for a in away[:15, 1]]
    assert made.scales == pytest.approx([quantile(row, share) for row in scores])
    assert made.radii_mm == pytest.approx([quantile(balls, share)] * 3), "others take what there is"
    regions = made.regions_of(["b", "a"], torch.stack([torch.zeros(dims, dims), spread[0, 0]]))
    torch.testing.assert_close(regions[0], torch.eye(dims, dtype=torch.float64) * made.radii_mm[1] ** 2)
    torch.testing.assert_close(regions[1], spread[0, 0] * made.scales[0] ** 2)


def ok(away: torch.Tensor, spread: torch.Tensor) -> bool:
    return bool(away.isfinite().all() and spread.isfinite().all() and spread.abs().max() > 0)


@DIMS
@pytest.mark.parametrize("count", [19, 40])
def test_a_new_place_lies_in_its_region_as_often_as_promised(dims: int, count: int) -> None:
    """Over 3000 landmarks the mean is ceil((N + 1) * 0.9) / (N + 1), though the covariances are far too small."""
    number = 3000
    names = [str(name) for name in range(number)]
    spread = covariances(count + 1, number, dims)
    away = draws(spread)
    made = calibrate_regions(away[:-1], spread[:-1], names, coverage=0.9)
    share = covered(away[-1], made.regions_of(names, spread[-1])).mean()
    expected = math.ceil((count + 1) * Fraction(9, 10)) / (count + 1)
    assert float(share) == pytest.approx(expected, abs=5 * math.sqrt(0.09 / number))


@DIMS
def test_both_kinds_are_covered(dims: int) -> None:
    """Half of the covariances have no shape: their balls hold as many as the others' ellipsoids."""
    number = 3000
    names = [str(name) for name in range(number)]
    spread = covariances(61, number, dims)
    away = draws(spread)
    shapeless = torch.rand(61, number, generator=torch.Generator().manual_seed(2)) < 0.5
    spread[shapeless] = 0
    made = calibrate_regions(away[:-1], spread[:-1], names, coverage=0.9)
    hits = covered(away[-1], made.regions_of(names, spread[-1]))
    seen = torch.tensor(made.examples).min()
    bound = 5 * math.sqrt(0.09 / (number / 2))
    for group in (shapeless[-1], ~shapeless[-1]):
        assert 0.9 - bound <= float(hits[group].mean()) <= 0.9 + 1 / (float(seen) + 1) + bound


@DIMS
def test_shapes_make_regions_smaller(dims: int) -> None:
    """Where errors follow the covariances' shapes, ellipsoids are smaller than balls of the same coverage."""
    spread = covariances(400, 1, dims, longest=20.0)
    away = draws(spread)
    made = calibrate_regions(away, spread, ["a"])
    (radius,) = calibrate_radii(
        torch.linalg.vector_norm(away, dim=-1), torch.zeros(400, 1, dtype=torch.bool), ["a"]
    ).radii_mm["sure"]
    assert region_size(made.regions_of(["a"], spread)).median() < 0.5 * radius


@DIMS
def test_large_regions_are_unsure(dims: int) -> None:
    """19 of 20 examples' sizes are sure: the rank of 0.95 among them is the largest but none."""
    sizes = torch.arange(1.0, 20.0, dtype=torch.float64)
    spread = sizes.square()[:, None, None, None] * torch.eye(dims, dtype=torch.float64)
    away = torch.zeros(19, 1, dims, dtype=torch.float64)
    away[..., 0] = sizes[:, None]  # each exactly one standard deviation off
    made = calibrate_regions(away, spread, ["a"], sure_share=0.95)
    assert made.scales == pytest.approx([1.0])
    assert made.unsure_above_mm == pytest.approx(19.0)
    new = torch.stack([spread[-1], 1.01 * spread[-1], torch.full_like(spread[-1], NAN)])
    assert made.unsure(made.regions_of(["a"], new)).flatten().tolist() == [False, True, True]


def test_too_few_examples_have_no_region() -> None:
    made = calibrate_regions(torch.ones(4, 2, 2), torch.eye(2).expand(4, 2, 2, 2), ["a", "b"], coverage=0.9)
    assert made.scales == (None, None)
    assert made.regions_of(["a", "b"], torch.eye(2).expand(2, 2, 2)).isnan().all()


def test_report() -> None:
    """Hand-counted: of landmark a two of three lie inside, of b the only one; c is never known."""
    made = RegionCalibration(("a", "b", "c"), 0.9, (2.0, 1.0, None), (1.0, 1.0, None), 1.5, ((9, 0),) * 3)
    away = torch.zeros(3, 3, 2)
    away[:, 0, 0] = torch.tensor([1.9, 2.1, 0.0])
    away[1:, 1] = NAN
    spread = torch.eye(2).expand(3, 3, 2, 2)
    names = ["a", "b", "c"]
    regions = made.regions_of(names, spread)
    report = coverage_report(0.9, names, away, regions, made.unsure(regions))
    assert report["target"] == 0.9
    assert (report["coverage"], report["examples"], report["unsure"]) == (0.75, 4, 0.75)
    of_a, of_b, of_c = (report["landmarks"][name] for name in "abc")
    assert (of_a["coverage"], of_a["examples"], of_a["unsure"]) == (pytest.approx(2 / 3), 3, 1.0)
    assert of_a["size_mm"] == pytest.approx(2.0)
    assert (of_b["coverage"], of_b["examples"], of_b["unsure"]) == (1.0, 1, 0.0)
    assert (of_c["coverage"], of_c["examples"], of_c["size_mm"]) == (None, 0, None)


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (18, 20), (7, 7), (500, 1000)])
def test_interval_is_scipys(hits: int, count: int) -> None:
    wanted = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(("cells", "spacing"), [((40, 52), [0.5, 0.8]), ((24, 20, 28), [0.5, 0.8, 1.4])])
def test_from_heatmap_to_region(cells: tuple[int, ...], spacing: list[float]) -> None:
    """A heatmap of standard deviation s gives a ball of s times the scale; one of a single cell the fallback."""
    points = torch.tensor([[[n / 2 + 0.3 for n in cells], [3.0] * len(cells)]], dtype=torch.float64)
    maps = encode_heatmaps(points, cells, stride=1, sigma_mm=1.5, spacing_mm=spacing)
    maps[0, 1] = torch.where(maps[0, 1] == maps[0, 1].max(), 1.0, 0.0)
    made = RegionCalibration(("a", "b"), 0.9, (2.0, 2.0), (7.0, 7.0), None, ((9, 9), (9, 9)))
    spread = heatmap_covariance(maps, stride=1, spacing_mm=spacing, radius=14)
    lengths, _ = semi_axes(made.regions_of(["a", "b"], spread))
    torch.testing.assert_close(lengths[0, 0], torch.full_like(lengths[0, 0], 3.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(lengths[0, 1], torch.full_like(lengths[0, 1], 7.0))


def test_warns_of_unlike_images_only() -> None:
    """Ten of the hundred examples exceed the limit: as many new ones are like them, most of a set are not."""
    spread = covariances(100, 1, 2)
    made = calibrate_regions(draws(spread), spread, ["a"], difficulty=torch.arange(100.0))
    assert made.difficulty_above == pytest.approx(89.1)
    assert made.warning(torch.arange(100.0)) == ""
    assert made.warning(torch.tensor([95.0, 95.0])) == "", "two images are too few to tell"
    said = made.warning(torch.tensor([NAN, 95.0, 95.0, 0.0]))
    assert said.startswith("3 of 4 images are harder than 90 % of those that the regions were calibrated on")
    assert calibrate_regions(draws(spread), spread, ["a"]).warning(torch.full((9,), NAN)) == ""
    few = calibrate_regions(draws(spread)[:6], spread[:6], ["a"], difficulty=torch.arange(6.0))
    assert few.warning(torch.full((9,), 99.0)) == "", "six examples do not tell what is unlike them"


def test_stretched_regions_hold_the_promised_share_of_other_errors() -> None:
    """Regions made for errors half as large hold too few; stretched by what some images ask, as many as promised."""
    spread = covariances(4000, 1, 2)
    made = calibrate_regions(draws(spread), spread, ["a"])
    away = 2 * draws(spread, seed=3)
    regions = made.regions_of(["a"], spread)
    assert float(covered(away, regions).nanmean()) < 0.8
    scale = region_scale(away[:1000], regions[:1000], 0.9)
    assert scale == pytest.approx(2, rel=0.05)
    stretched = made.stretched(scale)
    again = stretched.regions_of(["a"], spread)
    assert float(covered(away[1000:], again[1000:]).nanmean()) == pytest.approx(0.9, abs=0.02)
    assert int((stretched.unsure(again) != made.unsure(regions)).sum()) <= 1, "the same, but for the one on the limit"
    assert region_scale(away[:8], regions[:8], 0.9) is None, "eight examples say nothing about nine tenths"


class TestFile:
    def test_written_and_read(self, tmp_path: Path) -> None:
        spread = covariances(30, 2, 2)
        made = calibrate_regions(draws(spread), spread, ["a", "b"], difficulty=torch.arange(30.0), weights="abc")
        path = tmp_path / "regions.json"
        path.write_text(made.to_json(), encoding="utf-8")
        assert RegionCalibration.read(path) == made

    def test_of_an_earlier_version(self, tmp_path: Path) -> None:
        """A file without the digest of the weights is not taken for any weights."""
        spread = covariances(30, 2, 2)
        record = json.loads(calibrate_regions(draws(spread), spread, ["a", "b"]).to_json())
        del record["weights"]
        (tmp_path / "old.json").write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(ValueError, match=r"old\.json is no calibration of regions, or one of an earlier version"):
            RegionCalibration.read(tmp_path / "old.json")

    @pytest.mark.parametrize("text", ["", "[]", '{"names": ["a"]}', '{"names": ["a"], "coverage": 0.9, "scales": []}'])
    def test_another_file(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "other.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"other\.json is no calibration of regions"):
            RegionCalibration.read(path)


def test_bad_arguments() -> None:
    spread = covariances(30, 2, 2)
    with pytest.raises(ValueError, match="found 1 names for 2 landmarks"):
        calibrate_regions(draws(spread), spread, ["a"])
    with pytest.raises(ValueError, match="the calibration has no landmark 'c'"):
        calibrate_regions(draws(spread), spread, ["a", "b"]).regions_of(["a", "c"], spread[0])
    with pytest.raises(ValueError, match="needs 2 values of each kind"):
        RegionCalibration(("a", "b"), 0.9, (1.0,), (1.0, 1.0), 1.0, ((1, 1), (1, 1)))
