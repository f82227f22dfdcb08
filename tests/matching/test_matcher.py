"""The matcher as a whole, on embeddings that are known everywhere, so that the true places are known exactly."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medpixcl.landmarks.geometry import transform
from medpixcl.matching import LandmarkMatcher
from tests.matching.fields import WaveField, turned

STRIDES = [2, 4, 8]
SHAPES = {2: (96, 112), 3: (48, 56, 52)}
COUNT = 9


def landmarks(dims: int, generator: torch.Generator, count: int = COUNT) -> Tensor:
    """Voxels well inside the template, so that a turn does not bring them out of the query."""
    size = torch.tensor(SHAPES[dims])
    return (0.3 + 0.4 * torch.rand(count, dims, generator=generator)) * (size - 1)


def warp(dims: int, degrees: float = 8.0, scale: float = 1.06) -> tuple[Tensor, Tensor]:
    """A turn and a scale about the middle of the image, and a shift."""
    middle = (torch.tensor(SHAPES[dims]) - 1) / 2
    matrix = turned(dims, degrees, scale)
    return matrix, middle - matrix @ middle + torch.tensor([3.0, -2.0, 1.5])[:dims]


def fitted(field: WaveField, dims: int, points: Tensor, **options: object) -> LandmarkMatcher:
    shape, spacing = SHAPES[dims], [1.0] * dims
    image = torch.zeros(1, 1, *shape)
    return LandmarkMatcher(**options).fit(lambda _: field.levels(shape, spacing), STRIDES, image, points, spacing)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["argmax", "consistent"])
class TestKnownPlaces:
    def test_an_image_matches_itself(self, mode: str, dims: int, generator: torch.Generator) -> None:
        """Also where landmarks lie between the cells: to half a cell, and the way back leads to them."""
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        result = fitted(field, dims, points, mode=mode).match(field.levels(SHAPES[dims], [1.0] * dims))
        assert torch.linalg.vector_norm(result.voxels - points, dim=1).max() < 1.0
        assert result.cycle_mm.max() < 2.0
        assert result.flags == ("",) * COUNT

    def test_cells_of_the_finest_level_match_themselves_exactly(
        self, mode: str, dims: int, generator: torch.Generator
    ) -> None:
        """One level, landmarks on its cells: the score is 1, and the same cell is found there and back."""
        field = WaveField(dims, STRIDES)
        points = (landmarks(dims, generator) / 2).round() * 2 + 0.5
        result = fitted(field, dims, points, mode=mode, levels=[0]).match(field.levels(SHAPES[dims], [1.0] * dims))
        torch.testing.assert_close(result.scores, torch.ones(COUNT))
        assert (result.voxels - points).abs().max() <= 1.0
        assert result.cycle_mm.abs().max() < 1e-4

    def test_a_known_similarity(self, mode: str, dims: int, generator: torch.Generator) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        matrix, shift = warp(dims)
        result = fitted(field, dims, points, mode=mode).match(field.levels(SHAPES[dims], [1.0] * dims, matrix, shift))
        truth = transform(points, matrix, shift)
        assert torch.linalg.vector_norm(result.voxels - truth, dim=1).max() < 1.0

    def test_an_affine_stretch(self, mode: str, dims: int, generator: torch.Generator) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        matrix, shift = warp(dims)
        matrix = matrix @ torch.diag(torch.tensor([1.08, 0.95, 1.0])[:dims])
        result = fitted(field, dims, points, mode=mode).match(field.levels(SHAPES[dims], [1.0] * dims, matrix, shift))
        truth = transform(points, matrix, shift)
        assert torch.linalg.vector_norm(result.voxels - truth, dim=1).max() < 1.0

    def test_other_spacing(self, mode: str, dims: int, generator: torch.Generator) -> None:
        """The query's voxels are smaller and not cubes; what it shows is the same."""
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        spacing = [0.9, 0.8, 0.85][:dims]
        shape = tuple(round(n / s) for n, s in zip(SHAPES[dims], spacing, strict=True))
        result = fitted(field, dims, points, mode=mode).match(field.levels(shape, spacing), shape, spacing)
        found_mm = result.voxels * torch.tensor(spacing)
        assert torch.linalg.vector_norm(found_mm - points, dim=1).max() < 1.0
        assert result.cycle_mm.max() < 2.0


def damaged(levels: list[Tensor], at: Tensor, decoy: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Noise within 8 voxels of a place, and what was seen there at another place instead."""
    out = []
    for level, stride in zip(levels, STRIDES, strict=True):
        level = level.clone()
        axes = [(torch.arange(n) + 0.5) * stride - 0.5 for n in level.shape[2:]]
        distance = torch.linalg.vector_norm(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - at, dim=-1)
        target = torch.linalg.vector_norm(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - decoy, dim=-1)
        seen = level[0].flatten(1)[:, distance.flatten().argmin()]
        noise = F.normalize(torch.randn(level.shape, generator=generator), dim=1)
        level = torch.where(distance < 8, noise, level)
        out.append(torch.where(target < max(3, stride), seen.view(1, -1, *[1] * at.numel()), level))
    return out


@pytest.mark.parametrize("dims", [2, 3])
class TestOutliers:
    def test_a_landmark_seen_elsewhere_is_searched_where_the_others_expect_it(
        self, dims: int, generator: torch.Generator
    ) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        matrix, shift = warp(dims)
        truth = transform(points, matrix, shift)
        decoy = (torch.tensor(SHAPES[dims]) - 1) * 0.06
        levels = damaged(field.levels(SHAPES[dims], [1.0] * dims, matrix, shift), truth[0], decoy, generator)
        alone = fitted(field, dims, points, mode="argmax").match(levels)
        assert torch.linalg.vector_norm(alone.voxels[0] - decoy) < 6
        together = fitted(field, dims, points).match(levels)
        error = torch.linalg.vector_norm(together.voxels - truth, dim=1)
        assert error[0] < 9  # somewhere in what was destroyed
        far = torch.linalg.vector_norm(truth - truth[0], dim=1) > 16
        assert error[far].max() < 1.5
        assert together.flags[0] == "unsure"
        assert all(together.flags[number] == "" for number in far.nonzero().flatten().tolist())

    def test_residuals_are_distances_from_the_prediction(self, dims: int, generator: torch.Generator) -> None:
        """All others are in place, so the one that was moved by 10 mm stands out by about that."""
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        matcher = fitted(field, dims, points)
        wrong = points.clone()
        wrong[0, 0] += 10
        moved = fitted(field, dims, wrong)
        levels = field.levels(SHAPES[dims], [1.0] * dims)
        assert matcher.match(levels).residual_mm.max() < 1.5
        residual = moved.match(levels).residual_mm
        assert residual[0] < 2  # the template's own shape has the point there, too
        assert moved.match(levels).voxels[0, 0] == pytest.approx(wrong[0, 0].item(), abs=1.0)


@pytest.mark.parametrize("mode", ["argmax", "consistent"])
@pytest.mark.parametrize("dims", [2, 3])
class TestFewLandmarks:
    def test_one_landmark(self, dims: int, mode: str, generator: torch.Generator) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator, 1)
        result = fitted(field, dims, points, mode=mode).match(field.levels(SHAPES[dims], [1.0] * dims))
        assert torch.linalg.vector_norm(result.voxels - points) < 1.0
        assert result.residual_mm.isnan().all()
        assert result.flags == (("no geometry",) if mode == "consistent" else ("",))

    @pytest.mark.parametrize("count", [2, 3])
    def test_two_and_three_landmarks(self, dims: int, mode: str, count: int, generator: torch.Generator) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator, count)
        matrix, shift = warp(dims)
        result = fitted(field, dims, points, mode=mode).match(field.levels(SHAPES[dims], [1.0] * dims, matrix, shift))
        assert torch.linalg.vector_norm(result.voxels - transform(points, matrix, shift), dim=1).max() < 1.5

    def test_missing_landmarks(self, dims: int, mode: str, generator: torch.Generator) -> None:
        field, points = WaveField(dims, STRIDES), landmarks(dims, generator)
        holes = points.clone()
        holes[2], holes[5, 0] = torch.nan, torch.nan
        levels = field.levels(SHAPES[dims], [1.0] * dims)
        result = fitted(field, dims, holes, mode=mode).match(levels)
        missing = [number in (2, 5) for number in range(COUNT)]
        assert [flag == "missing" for flag in result.flags] == missing
        for values in (result.voxels[:, 0], result.scores, result.ratios, result.cycle_mm):
            assert values.isnan().tolist() == missing
        kept = [number for number in range(COUNT) if not missing[number]]
        rest = fitted(field, dims, points[kept], mode=mode).match(levels)
        torch.testing.assert_close(result.voxels[kept], rest.voxels)


def two_templates(points: Tensor, other: Tensor, **options: object) -> tuple[LandmarkMatcher, WaveField]:
    """Template 1 as it is, template 2 a turned and scaled one; both of the same field."""
    field, (matrix, shift) = WaveField(2, STRIDES), warp(2)
    maps = iter([field.levels(SHAPES[2], [1.0, 1.0]), field.levels(SHAPES[2], [1.0, 1.0], matrix, shift)])
    images = [torch.zeros(1, 1, *SHAPES[2])] * 2
    marked = [points, transform(other, matrix, shift)]
    return LandmarkMatcher(**options).fit(lambda _: next(maps), STRIDES, images, marked, [1.0, 1.0]), field


@pytest.mark.parametrize("mode", ["argmax", "consistent"])
def test_templates_complete_each_other(mode: str, generator: torch.Generator) -> None:
    """What one template lacks comes from the other."""
    points = landmarks(2, generator)
    first, second = points.clone(), points.clone()
    first[0], second[1], first[2], second[2] = torch.nan, torch.nan, torch.nan, torch.nan
    matcher, field = two_templates(first, second, mode=mode)
    result = matcher.match(field.levels(SHAPES[2], [1.0, 1.0]))
    assert [flag == "missing" for flag in result.flags] == [number == 2 for number in range(COUNT)]
    there = [number for number in range(COUNT) if number != 2]
    assert torch.linalg.vector_norm(result.voxels - points, dim=1)[there].max() < 1.0
    assert result.cycle_mm[there].max() < 2.5


def test_two_equal_templates_are_as_one(generator: torch.Generator) -> None:
    field, points = WaveField(2, STRIDES), landmarks(2, generator)
    image = torch.zeros(1, 1, *SHAPES[2])
    levels = field.levels(SHAPES[2], [1.0, 1.0])
    both = LandmarkMatcher().fit(lambda _: levels, STRIDES, [image, image], [points, points], [[1.0, 1.0]] * 2)
    one = fitted(field, 2, points).match(levels)
    torch.testing.assert_close(both.match(levels).voxels, one.voxels, rtol=0, atol=1e-3)


def test_marks_that_err_in_opposite_ways_cancel(generator: torch.Generator) -> None:
    """One reader marks all landmarks 3 mm too low, the other 3 mm too high: in between lies the truth."""
    points, low = landmarks(2, generator), torch.tensor([3.0, 0.0])
    matcher, field = two_templates(points + low, points - low)
    result = matcher.match(field.levels(SHAPES[2], [1.0, 1.0]))
    assert (result.voxels - points).abs().mean() < 0.5
    alone = fitted(field, 2, points + low).match(field.levels(SHAPES[2], [1.0, 1.0]))
    torch.testing.assert_close(alone.voxels, points + low, rtol=0, atol=1.0)


def test_padding_is_not_searched(generator: torch.Generator) -> None:
    """The best place lies in the padded part: nothing is found there."""
    field, points = WaveField(2, STRIDES), landmarks(2, generator)
    levels = field.levels(SHAPES[2], [1.0, 1.0])
    for mode in ("argmax", "consistent"):
        result = fitted(field, 2, points, mode=mode).match(levels, (50, 50))
        assert (result.voxels <= 49.5).all()


def test_an_image_instead_of_its_levels(generator: torch.Generator) -> None:
    field, points = WaveField(2, STRIDES), landmarks(2, generator)
    matcher = fitted(field, 2, points)
    result = matcher.match(torch.zeros(1, 1, *SHAPES[2]))
    expected = matcher.match(field.levels(SHAPES[2], [1.0, 1.0]), SHAPES[2], [1.0, 1.0])
    torch.testing.assert_close(result.voxels, expected.voxels)


def test_a_match_repeats_exactly(generator: torch.Generator) -> None:
    field, points = WaveField(2, STRIDES), landmarks(2, generator)
    matcher, levels = fitted(field, 2, points), field.levels(SHAPES[2], [1.0, 1.0], *warp(2))
    assert torch.equal(matcher.match(levels).voxels, matcher.match(levels).voxels)


class TestErrors:
    def test_unknown_words(self) -> None:
        with pytest.raises(ValueError, match="mode must be 'argmax' or 'consistent', found 'best'"):
            LandmarkMatcher(mode="best")

    @pytest.mark.parametrize(
        ("options", "points", "spacing", "message"),
        [
            ({}, [torch.zeros(2, 2)] * 2, [1.0, 1.0], "found 1 template images, 2 sets of landmarks and 1 spacings"),
            ({}, torch.zeros(2, 3), [1.0, 1.0], "has 2 axes, but its landmarks 3 coordinates"),
            ({}, torch.full((2, 2), torch.nan), [1.0, 1.0], "no template has a landmark with a position"),
            ({}, torch.zeros(2, 2), [1.0, 1.0, 1.0], "the image has 2 axes, but the spacing"),
            ({"levels": [3]}, torch.zeros(2, 2), [1.0, 1.0], r"levels 0 to 2, found levels=\[3\]"),
            ({"levels": [-1]}, torch.zeros(2, 2), [1.0, 1.0], r"levels 0 to 2, found levels=\[-1\]"),
        ],
        ids=["numbers", "coordinates", "no landmark", "spacing", "levels", "levels from the end"],
    )
    def test_templates_that_do_not_fit(self, options: dict, points: object, spacing: list, message: str) -> None:
        field, image = WaveField(2, STRIDES), torch.zeros(1, 1, *SHAPES[2])
        with pytest.raises(ValueError, match=message):
            LandmarkMatcher(**options).fit(
                lambda _: field.levels(SHAPES[2], [1.0, 1.0]), STRIDES, image, points, spacing
            )

    def test_templates_without_a_common_landmark(self) -> None:
        first, second = torch.full((2, 2), 30.0), torch.full((2, 2), 40.0)
        first[0], second[1] = torch.nan, torch.nan
        with pytest.raises(ValueError, match="annotated image 2 shares no landmark with the first one"):
            two_templates(first, second)
