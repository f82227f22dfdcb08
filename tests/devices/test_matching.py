"""Matching runs on a device from the annotated image to the result, and finds what it finds on the CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from medpixcl.landmarks.geometry import consensus_similarity, mean_shape, robust_similarity
from medpixcl.matching import LandmarkMatcher, MatchResult, Population, best_match, product_match
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.key_points import draw_key_points, find_points, point_quality
from medpixcl.matching.mutual import mutual_matches
from medpixcl.matching.point_distribution import PointDistribution
from medpixcl.matching.product import describe
from medpixcl.matching.trust import Relabelled, relabel
from tests.devices.pretend import NAME, assert_same, on, pretend_device
from tests.matching import test_local_correlation as bodies
from tests.matching.fields import WaveField, turned

DIMS = pytest.mark.parametrize("dims", [2, 3])
SHAPE = {2: (48, 40), 3: (24, 20, 28)}
STRIDES = [2, 4]
RESULT = ("voxels", "scores", "ratios", "cycle_mm", "residual_mm", "covariance_mm2")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def scene(dims: int, count: int = 5) -> dict[str, Any]:
    """Maps of a template and of an image in which it is turned, and the landmarks, one of them missing."""
    field, spacing = WaveField(dims, STRIDES, length=16), [1.0] * dims
    shift = torch.full((dims,), 1.5)
    points = (0.25 + 0.5 * draw(count, dims)) * torch.tensor(SHAPE[dims])
    points[-1] = torch.nan
    levels, other = field.levels(SHAPE[dims], spacing), field.levels(SHAPE[dims], spacing, turned(dims, 4, 1.0), shift)
    return {"levels": levels, "other": other, "points": points}


def match(scene: dict[str, Any], learn: bool = False, population: Population | None = None, **options: Any) -> Any:
    """Landmarks of the template in the other image, after learning from it if so wanted."""
    dims = scene["points"].shape[1]
    shape, spacing = SHAPE[dims], [1.0] * dims
    image = scene["points"].new_zeros(1, 1, *shape)
    second = scene["points"] + 0.5
    matcher = LandmarkMatcher(**options).fit(
        lambda _: scene["levels"], STRIDES, [image, image], [scene["points"], second], spacing
    )
    if learn:
        population = matcher.learn([(scene["other"], shape, spacing)])
    if population is not None:
        matcher.adapt(population)
    result = matcher.match(scene["other"], shape, spacing)
    return {name: getattr(result, name) for name in RESULT} | ({} if population is None else vars(population))


@DIMS
@pytest.mark.parametrize("mode", ["argmax", "consistent"])
def test_matcher(dims: int, mode: str) -> None:
    found = assert_same(match, scene(dims), mode=mode)
    assert found["voxels"].device.type == NAME


def match_body(marks: Tensor, **options: Any) -> dict[str, Any]:
    """Landmarks of a body in any pose: images lie on the CPU, the embedding where the landmarks do."""
    embed = bodies.embedding(dims := marks.shape[1])
    fine = [bodies.FINE] * dims
    query, steps, _, _ = bodies.turned_body(dims, bodies.FINE)
    matcher = LandmarkMatcher(upright=True, coarse_side=max(bodies.posed.SHAPE[dims]), **options).fit(
        lambda image: embed(image.to(marks)),
        bodies.posed.STRIDES,
        bodies.template(dims, fine[0]),
        marks / fine[0],
        fine,
    )
    result = matcher.match(query, spacing=steps.tolist())
    return {name: getattr(result, name) for name in RESULT}


@DIMS
def test_upright_matcher_that_refines(dims: int) -> None:
    marks = bodies.landmarks(dims, 4)
    marks[1] = torch.nan
    assert_same(match_body, marks)


def test_matcher_of_a_single_landmark() -> None:
    given = scene(2)
    assert_same(match, given | {"points": given["points"][:1]})


@DIMS
def test_population(dims: int) -> None:
    assert_same(match, scene(dims), learn=True)


def test_population_read_from_a_file_serves_a_matcher_on_a_device() -> None:
    given = scene(2)
    seen = match(given, learn=True)
    population = Population(**{name: seen[name] for name in ("vectors", "around", "weights", "images", "cell_mm")})
    expected = match(given, population=population)
    with pretend_device() as device:
        found = match(on(device, given), population=population)
        voxels = found["voxels"].cpu()
    torch.testing.assert_close(voxels, expected["voxels"], equal_nan=True)


@DIMS
def test_search(dims: int) -> None:
    given = scene(dims)
    levels, other = ([level[0] for level in given[key]] for key in ("levels", "other"))
    points = given["points"][:-1]
    vectors = describe(levels, STRIDES, points)
    assert_same(best_match, vectors[0], other[0], tile=64)
    assert_same(product_match, vectors, other, STRIDES, SHAPE[dims])
    grid = CellGrid(tuple(other[0].shape[1:]), STRIDES[0], (1.0,) * dims)
    assert_same(find_points, vectors, other, STRIDES, grid)
    assert_same(
        lambda *maps: vars(mutual_matches(*maps, STRIDES, (SHAPE[dims], SHAPE[dims]), [1.0] * dims)),
        points,
        levels,
        other,
    )


def test_key_points() -> None:
    assert_same(point_quality, draw(6, 4), draw(6, 4, seed=1))
    with pretend_device() as device:
        weights = draw(20, 24)
        drawn = [
            draw_key_points(
                one, 4, spacing=[1.0, 1.0], min_distance_mm=3.0, generator=torch.Generator().manual_seed(0)
            ).tolist()
            for one in (weights, weights.to(device))
        ]
    assert drawn[0] == drawn[1]


@DIMS
def test_shapes(dims: int) -> None:
    template = 40 * draw(6, dims)
    found = template + draw(4, 6, dims, seed=1)
    assert_same(lambda shapes: mean_shape(list(shapes)), found)
    assert_same(robust_similarity, template, found[0])
    assert_same(consensus_similarity, template, found.movedim(0, 1), draw(6, 4), sigma=2.0)
    assert_same(lambda *given: vars(PointDistribution(*given).judge(*given[:2])), found, draw(4, 6), template)


def test_relabelling() -> None:
    template = 40 * draw(6, 2).double()
    found = template + draw(4, 6, 2, seed=1)
    found[0, 0] = torch.nan

    def work(found: Tensor, confidence: Tensor, spread: Tensor, weights: Tensor, template: Tensor) -> dict[str, Tensor]:
        before = Relabelled(found.nan_to_num(0) + 0.5, weights)
        return vars(relabel(found, confidence, spread, before, template, 2.0))

    assert_same(work, found, draw(4, 6), draw(4, 6, seed=2), draw(4, 6, seed=3), template)


def test_result_is_made_of_the_fields_compared_here() -> None:
    assert {*RESULT, "flags"} == set(MatchResult.__dataclass_fields__)
